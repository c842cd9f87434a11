// Programs against the emulated runtime, run under many seeds: with a planted error, which must be
// found whatever order the machine chose, and without, where nothing may be found.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <nvtx3/nvToolsExt.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "harness/emulator/emulator.hpp"
#include "reference/problem/global_memory.hpp"

namespace sp::emulated {

using emulator::FaultKind;
using emulator::FaultReport;

constexpr std::uint64_t kRuntimeSeeds = 12;

// The machine as it should end: no fault, nothing left alive on device 0.
inline void expect_clean(const std::function<void()>& program, emulator::Settings settings = {}) {
  for (settings.seed = 1; settings.seed <= kRuntimeSeeds; ++settings.seed) {
    SCOPED_TRACE("seed " + std::to_string(settings.seed));
    emulator::configure(settings);
    program();
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const FaultReport fault = emulator::take_fault();
    ASSERT_FALSE(fault.found) << fault.what;
    ASSERT_EQ(emulator::live_objects(0).total(), 0);
  }
}

// The first fault of every run is of this kind, and its story holds these words.
inline void expect_found(FaultKind kind, const std::vector<std::string>& words,
                         const std::function<void()>& program, emulator::Settings settings = {}) {
  for (settings.seed = 1; settings.seed <= kRuntimeSeeds; ++settings.seed) {
    SCOPED_TRACE("seed " + std::to_string(settings.seed));
    emulator::configure(settings);
    program();
    cudaDeviceSynchronize();
    const FaultReport fault = emulator::take_fault();
    ASSERT_TRUE(fault.found);
    ASSERT_EQ(fault.kind, kind) << fault.what;
    for (const std::string& word : words) {
      ASSERT_NE(fault.what.find(word), std::string::npos)
          << "'" << word << "' is not in: " << fault.what;
    }
  }
}

// A stream that other streams do not wait for.
class TestStream {
 public:
  TestStream() {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  ~TestStream() { cudaStreamDestroy(stream_); }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class TestEvent {
 public:
  explicit TestEvent(unsigned flags = cudaEventDisableTiming) {
    EXPECT_EQ(cudaEventCreateWithFlags(&event_, flags), cudaSuccess);
  }
  ~TestEvent() { cudaEventDestroy(event_); }
  TestEvent(const TestEvent&) = delete;
  TestEvent& operator=(const TestEvent&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// `count` floats, freed in the order of their stream.
class TestFloats {
 public:
  TestFloats(cudaStream_t stream, std::size_t count) : stream_(stream) {
    EXPECT_EQ(cudaMallocAsync(&address_, count * sizeof(float), stream), cudaSuccess);
  }
  ~TestFloats() { cudaFreeAsync(address_, stream_); }
  TestFloats(const TestFloats&) = delete;
  TestFloats& operator=(const TestFloats&) = delete;
  operator Global<float>() const { return Global<float>(address_); }
  float* get() const { return address_; }

 private:
  cudaStream_t stream_;
  float* address_ = nullptr;
};

// Runs `body` in one thread of each of `blocks` blocks, with the block's index.
inline cudaError_t run_kernel_in(cudaStream_t stream, const char* name, unsigned blocks,
                                 std::function<void(int)> body) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(32);
  config.stream = stream;
  nvtxRangePushA(name);
  const cudaError_t error = launch_kernel(config, nullptr, [body = std::move(body)] {
    if (threadIdx.x == 0) body(static_cast<int>(blockIdx.x));
  });
  nvtxRangePop();
  return error;
}

inline cudaError_t fill_in(cudaStream_t stream, Global<float> x, int count, float value) {
  return run_kernel_in(stream, "filler", 1, [=](int) {
    for (int i = 0; i < count; ++i) x.store(i, value);
  });
}

// to = from + 1
inline cudaError_t increment_in(cudaStream_t stream, Global<float> to, Global<float> from,
                                int count) {
  return run_kernel_in(stream, "incrementer", 1, [=](int) {
    for (int i = 0; i < count; ++i) to.store(i, from.load(i) + 1);
  });
}

// -1 where the copy fails.
inline std::vector<float> download(cudaStream_t stream, const float* from, std::size_t count) {
  std::vector<float> result(count, -1);
  cudaMemcpyAsync(result.data(), from, count * sizeof(float), cudaMemcpyDeviceToHost, stream);
  return result;
}

}  // namespace sp::emulated
