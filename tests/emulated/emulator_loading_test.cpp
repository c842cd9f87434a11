// Kernels that are loaded at their first launch, which may wait for the device.
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <optional>

#include "tests/emulated/flag_operations.hpp"
#include "tests/emulated/nccl_ranks.hpp"
#include "tests/emulated/runtime_fixture.hpp"

namespace sp::emulated {
namespace {

// CUDA_MODULE_LOADING until the end of a scope. No other thread runs at either.
class Loading {
 public:
  explicit Loading(const char* how) {
    if (const char* before = std::getenv(kName)) before_ = before;
    how != nullptr ? setenv(kName, how, 1) : unsetenv(kName);
  }
  ~Loading() { before_ ? setenv(kName, before_->c_str(), 1) : unsetenv(kName); }
  Loading(const Loading&) = delete;
  Loading& operator=(const Loading&) = delete;

 private:
  static constexpr const char* kName = "CUDA_MODULE_LOADING";
  std::optional<std::string> before_;
};

// Rank 1 sends when rank 0 has launched a kernel, which it does while it receives.
void launch_while_receiving() {
  std::atomic<bool> launched{false};
  test::on_nccl_ranks(2, [&](const test::NcclRank& r) {
    TestStream other;
    float* x = r.put({1});
    if (r.rank == 0) {
      ncclRecv(x, 1, ncclFloat32, 1, r.comm, r.stream);
      fill_in(other, Global<float>(r.make(1)), 1, 2);
      emulator::enqueue(other, std::make_unique<Raises>(launched));
      cudaStreamSynchronize(other);
    } else {
      emulator::enqueue(other, std::make_unique<Waits>(launched, "waits for the launch"));
      cudaStreamSynchronize(other);
      ncclSend(x, 1, ncclFloat32, 0, r.comm, r.stream);
    }
    cudaStreamSynchronize(r.stream);
  });
}

TEST(EmulatorLoading, AFirstLaunchMayWaitForTheDevice) {
  for (const char* how : {static_cast<const char*>(nullptr), "LAZY"}) {
    const Loading loading(how);
    expect_found(FaultKind::kDeadlock,
                 {"device 0, stream 1: ncclRecv", "device 1, stream 2: waits for the launch"},
                 launch_while_receiving);
  }
}

TEST(EmulatorLoading, UnlessAllKernelsWereLoadedBefore) {
  const Loading loading("EAGER");
  for (std::uint64_t seed = 1; seed <= kRuntimeSeeds; ++seed) {
    emulator::configure({.seed = seed});
    launch_while_receiving();
    const FaultReport fault = emulator::take_fault();
    ASSERT_FALSE(fault.found) << fault.what;
  }
}

// It runs what is there, and orders nothing.
TEST(EmulatorLoading, LaterLaunchesWaitForNothing) {
  const Loading loading("LAZY");
  emulator::configure({});
  {
    TestStream stream;
    TestFloats x(stream, 8);
    std::atomic<bool> first{false}, second{false};
    emulator::enqueue(stream, std::make_unique<Raises>(first));
    fill_in(stream, x, 8, 1);
    EXPECT_TRUE(first);
    emulator::enqueue(stream, std::make_unique<Raises>(second));
    fill_in(stream, x, 8, 2);
    EXPECT_FALSE(second);
    cudaStreamSynchronize(stream);
  }
  EXPECT_FALSE(emulator::take_fault().found);
  expect_found(FaultKind::kOrder, {"with no event or synchronisation between"}, [] {
    TestStream one, two;
    float* x = nullptr;
    cudaMalloc(&x, 32);
    cudaMemsetAsync(x, 0, 32, one);
    fill_in(two, Global<float>(x), 8, 1);
    cudaDeviceSynchronize();
  });
}

}  // namespace
}  // namespace sp::emulated
