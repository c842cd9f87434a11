// Calls and their errors: handles, launches against the limits of a GPU, errors that stick.
// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/nvtx.hpp"
#include "harness/emulator/runtime_api.hpp"
#include "tests/emulated/runtime_fixture.hpp"

namespace sp::emulated {
namespace {

std::function<void()> launches(dim3 grid, dim3 block, std::size_t shared_bytes, int asked_for,
                               cudaError_t expected) {
  return [=] {
    TestStream stream;
    static const int kernel = 0;  // any address tells kernels apart
    nvtxRangePushA("limited");
    if (asked_for > 0) {
      cudaFuncSetAttribute(&kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, asked_for);
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    EXPECT_EQ(launch_kernel(config, &kernel, [] {}), expected);
    nvtxRangePop();
  };
}

TEST(EmulatorLaunch, KeepsTheLimitsOfTheGpu) {
  const auto refused = [](const std::vector<std::string>& words, dim3 grid, dim3 block,
                          std::size_t shared_bytes, int asked_for, const char* model) {
    expect_found(FaultKind::kResources, words,
                 launches(grid, block, shared_bytes, asked_for, cudaErrorInvalidConfiguration),
                 {.model = model});
  };
  refused({"limited: blocks of 1025 x 1 x 1 threads"}, 1, 1025, 0, 0, "A100");
  refused({"limited: blocks of 0 x 1 x 1"}, 1, 0, 0, 0, "A100");
  refused({"limited: a grid of 0 x 1 x 1"}, 0, 32, 0, 0, "A100");
  refused({"a grid of 1 x 65536 x 1"}, dim3(1, 65536), 32, 0, 0, "A100");
  refused({"49153 bytes of dynamic shared memory, but 49152"}, 1, 32, 49153, 0, "A100");
  refused({"60001 bytes", "60000"}, 1, 32, 60001, 60000, "H100");
  expect_clean(launches(1, 1024, 49152, 0, cudaSuccess));
  expect_clean(launches(dim3(1, 300, 2), 32, 60000, 60000, cudaSuccess));
}

TEST(EmulatorLaunch, SharedMemoryEndsWhereTheModelEnds) {
  const struct {
    const char* model;
    int limit;
  } rows[] = {
      {"A100", 166912}, {"A10", 101376}, {"L20", 101376}, {"H100", 232448}, {"B200", 232448}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.model);
    const emulator::Settings settings{.model = row.model};
    const auto bytes = static_cast<std::size_t>(row.limit);
    expect_clean(launches(1, 32, bytes, row.limit, cudaSuccess), settings);
    expect_found(FaultKind::kResources, {"cudaFuncSetAttribute: limited", row.model},
                 launches(1, 32, bytes + 1, row.limit + 1, cudaErrorInvalidConfiguration),
                 settings);
    cudaDeviceProp properties;
    EXPECT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
    EXPECT_EQ(properties.sharedMemPerBlockOptin, bytes);
    EXPECT_NE(std::string(properties.name).find(row.model), std::string::npos);
  }
}

TEST(EmulatorLaunch, RegistersTimesThreadsMustFit) {
  const auto program = [](int registers, cudaError_t expected) {
    return [=] {
      emulator::declare_registers("limited", registers);
      launches(1, 512, 0, 0, expected)();
    };
  };
  expect_clean(program(128, cudaSuccess));
  expect_found(FaultKind::kResources, {"limited: 129 registers for each of 512 threads", "65536"},
               program(129, cudaErrorLaunchOutOfResources));
}

TEST(EmulatorLaunch, OccupancyAsTheCalculatorSays) {
  emulator::configure({.model = "A100"});
  static const int kernel = 0;
  const auto blocks = [&](int threads, int shared_bytes, int registers) {
    emulator::declare_registers("occupied", registers);
    nvtxRangePushA("occupied");
    int result = -1;
    EXPECT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&result, &kernel, threads,
                                                            static_cast<std::size_t>(shared_bytes)),
              cudaSuccess);
    cudaFuncAttributes attributes;
    EXPECT_EQ(cudaFuncGetAttributes(&attributes, &kernel), cudaSuccess);
    EXPECT_EQ(attributes.numRegs, registers);
    nvtxRangePop();
    return result;
  };
  EXPECT_EQ(blocks(32, 0, 32), 32);          // blocks per processor
  EXPECT_EQ(blocks(1024, 0, 32), 2);         // threads
  EXPECT_EQ(blocks(128, 0, 128), 4);         // registers: 16 warps of 4096
  EXPECT_EQ(blocks(128, 0, 129), 3);         // 12 warps of 4352
  EXPECT_EQ(blocks(128, 80 * 1024, 32), 2);  // shared: (80 + 1) KiB of 164
  EXPECT_EQ(blocks(128, 82 * 1024, 32), 1);
  EXPECT_EQ(blocks(128, 0, 256), 0);
}

TEST(EmulatorCalls, RefuseStaleAndForeignHandles) {
  expect_found(FaultKind::kApi, {"cudaEventRecord: no such stream, or it was destroyed"}, [] {
    TestEvent event;
    cudaStream_t stream = nullptr;
    cudaStreamCreate(&stream);
    cudaStreamDestroy(stream);
    EXPECT_EQ(cudaEventRecord(event, stream), cudaErrorInvalidResourceHandle);
  });
  expect_found(FaultKind::kApi, {"stream of device 0 used while device 1 is current"}, [] {
    TestStream stream;
    cudaSetDevice(1);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
    cudaSetDevice(0);
  });
  expect_found(FaultKind::kApi, {"no such event"},
               [] { EXPECT_EQ(cudaEventSynchronize(nullptr), cudaErrorInvalidResourceHandle); });
}

TEST(EmulatorCalls, RefuseWhatTheDocumentationForbids) {
  float host[2] = {};
  expect_found(FaultKind::kApi, {"cudaMemcpyHostToDevice, but it goes to host memory"}, [&] {
    TestStream stream;
    EXPECT_EQ(cudaMemcpyAsync(host, host + 1, 4, cudaMemcpyHostToDevice, stream),
              cudaErrorInvalidValue);
  });
  expect_found(FaultKind::kApi, {"source and destination overlap"}, [&] {
    TestStream stream;
    TestFloats x(stream, 8);
    EXPECT_EQ(cudaMemcpyAsync(x.get(), x.get() + 1, 8, cudaMemcpyDeviceToDevice, stream),
              cudaErrorInvalidValue);
  });
  expect_found(FaultKind::kApi, {"unknown flags 8"}, [] {
    cudaStream_t stream = nullptr;
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, 8), cudaErrorInvalidValue);
  });
  expect_found(FaultKind::kApi, {"no device 64"},
               [] { EXPECT_EQ(cudaSetDevice(64), cudaErrorInvalidDevice); });
  expect_found(FaultKind::kApi, {"cudaMallocAsync: zero bytes"}, [] {
    TestStream stream;
    float* x = nullptr;
    EXPECT_EQ(cudaMallocAsync(&x, 0, stream), cudaErrorInvalidValue);
  });
}

TEST(EmulatorCalls, ErrorsStickUntilTheFaultIsTaken) {
  emulator::configure({});
  {
    TestStream stream;
    TestFloats x(stream, 8), y(stream, 8);
    increment_in(stream, y, x, 8);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    float* z = nullptr;
    EXPECT_EQ(cudaMallocAsync(&z, 4, stream), cudaErrorLaunchFailure);
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorLaunchFailure);
    EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
    EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
    const std::string text = cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_NE(text.find("unspecified launch failure; device 0, uninitialised"), std::string::npos)
        << text;
  }
  EXPECT_EQ(emulator::live_objects(0).total(), 0) << "destruction must work even then";
  EXPECT_EQ(emulator::take_fault().kind, FaultKind::kUninitialised);
  EXPECT_FALSE(emulator::take_fault().found);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cudaGetLastError();
  EXPECT_STREQ(cudaGetErrorString(cudaErrorLaunchFailure), "unspecified launch failure");
}

TEST(EmulatorCalls, OneDeviceFailsAlone) {
  emulator::configure({});
  {
    TestStream stream;
    TestFloats x(stream, 8);
    download(stream, x.get(), 8);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  }
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(0), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_TRUE(emulator::take_fault().found);
}

TEST(EmulatorCalls, CountWhatIsLeftBehind) {
  emulator::configure({});
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  float *x = nullptr, *pinned = nullptr;
  cudaStreamCreate(&stream);
  cudaEventCreate(&event);
  cudaMallocAsync(&x, 4, stream);
  cudaMallocHost(&pinned, 4);
  EXPECT_EQ(emulator::live_objects(0).total(), 4);
  cudaDeviceReset();
  const emulator::Objects leaks = emulator::take_leaks();
  EXPECT_EQ(leaks.streams, 1);
  EXPECT_EQ(leaks.events, 1);
  EXPECT_EQ(leaks.allocations, 1);
  EXPECT_EQ(leaks.pinned, 1);
  EXPECT_EQ(emulator::live_objects(0).total(), 0);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(emulator::take_leaks().total(), 0);
  emulator::take_fault();
}

TEST(EmulatorCalls, StreamsMayBeDestroyedBeforeTheirWorkIsDone) {
  expect_clean([] {
    float* x = nullptr;
    cudaMalloc(&x, 32);
    for (int i = 0; i < 200; ++i) {
      TestStream stream;
      fill_in(stream, Global<float>(x), 8, static_cast<float>(i));
      if (i % 50 != 0) cudaStreamSynchronize(stream);
      if (i % 50 == 0) {
        TestEvent end;
        cudaEventRecord(end, stream);
        cudaEventSynchronize(end);
      }
    }
    float last = 0;
    EXPECT_EQ(cudaMemcpy(&last, x, 4, cudaMemcpyDeviceToHost), cudaSuccess);
    EXPECT_EQ(last, 199);
    cudaFree(x);
  });
}

TEST(EmulatorCalls, RangesNest) {
  emulator::configure({});
  EXPECT_EQ(nvtxRangePushA("outer"), 0);
  EXPECT_EQ(nvtxRangePushA("inner"), 1);
  EXPECT_EQ(emulator::nvtx_range(), "inner");
  EXPECT_EQ(nvtxRangePop(), 1);
  EXPECT_EQ(emulator::nvtx_range(), "outer");
  EXPECT_EQ(nvtxRangePop(), 0);
  EXPECT_EQ(emulator::nvtx_depth(), 0);
  EXPECT_FALSE(emulator::take_fault().found);
  EXPECT_EQ(nvtxRangePop(), -1);
  EXPECT_EQ(emulator::take_fault().kind, FaultKind::kApi);
}

}  // namespace
}  // namespace sp::emulated
