// Device memory: what one access may not do, what blocks of one launch may not do to each other.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>

#include <cstring>
#include <numeric>

#include "harness/emulator/machine.hpp"
#include "tests/emulated/runtime_fixture.hpp"

namespace sp::emulated {
namespace {

TEST(EmulatorMemory, KeepsWhatIsWritten) {
  expect_clean([] {
    TestStream stream;
    TestFloats x(stream, 100), y(stream, 100);
    std::vector<float> values(100);
    std::iota(values.begin(), values.end(), 0.0f);
    cudaMemcpyAsync(x.get(), values.data(), 400, cudaMemcpyHostToDevice, stream);
    values.assign(100, -7);  // pageable bytes were taken at the call
    increment_in(stream, y, x, 100);
    const std::vector<float> result = download(stream, y.get(), 100);
    for (int i = 0; i < 100; ++i) ASSERT_EQ(result[static_cast<std::size_t>(i)], float(i) + 1);
  });
}

TEST(EmulatorMemory, AlignsAllocations) {
  expect_clean([] {
    TestStream stream;
    TestFloats x(stream, 1), y(stream, 65), z(stream, 3);
    for (const float* each : {x.get(), y.get(), z.get()}) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(each) % 256, 0u);
    }
  });
}

TEST(EmulatorMemory, FindsAccessesBehindTheEnd) {
  for (const bool writes : {false, true}) {
    expect_found(FaultKind::kOutOfBounds,
                 {"kernel overrun", writes ? "write of 4 bytes" : "read of 4 bytes",
                  "8 bytes behind the end of an allocation of 40 bytes"},
                 [&] {
                   TestStream stream;
                   TestFloats x(stream, 10);
                   const Global<float> g = x;
                   run_kernel_in(stream, "overrun", 1, [=](int) {
                     if (writes) g.store(12, 1.0f);
                     if (!writes) g.load(12);
                   });
                   cudaStreamSynchronize(stream);
                 });
  }
}

TEST(EmulatorMemory, FindsAnAccessThatStraddlesTheEnd) {
  expect_found(FaultKind::kOutOfBounds,
               {"write of 16 bytes", "offset 32 of an allocation of 40 bytes", "byte 8",
                "0 bytes behind the end"},
               [] {
                 TestStream stream;
                 TestFloats x(stream, 10);
                 const Global<float> g = x;
                 run_kernel_in(stream, "wide", 1,
                               [=](int) { g.store_as<float4>(8, float4{1, 2, 3, 4}); });
                 cudaStreamSynchronize(stream);
               });
}

TEST(EmulatorMemory, FindsAccessesBeforeTheBeginning) {
  expect_found(FaultKind::kOutOfBounds, {"read of 4 bytes", "4 bytes before an allocation of 40"},
               [] {
                 TestStream stream;
                 TestFloats x(stream, 10);
                 const Global<float> g = x;
                 run_kernel_in(stream, "underrun", 1, [=](int) { g.load(-1); });
                 cudaStreamSynchronize(stream);
               });
}

TEST(EmulatorMemory, FindsHostAndNullAddresses) {
  static float host = 1;
  for (float* address : {&host, static_cast<float*>(nullptr)}) {
    expect_found(FaultKind::kOutOfBounds, {"no address of this device"}, [&] {
      TestStream stream;
      const Global<float> g(address);
      run_kernel_in(stream, "stray", 1, [=](int) { g.load(); });
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    });
  }
}

TEST(EmulatorMemory, FindsAddressesOfOtherDevices) {
  expect_found(FaultKind::kOutOfBounds,
               {"device 0, out of bounds", "no address of this device", "(device 1)"}, [] {
                 cudaSetDevice(1);
                 float* elsewhere = nullptr;
                 cudaMalloc(&elsewhere, 4);
                 cudaSetDevice(0);
                 TestStream stream;
                 run_kernel_in(stream, "stray", 1, [=](int) { Global<float>(elsewhere).load(); });
                 cudaStreamSynchronize(stream);
               });
}

TEST(EmulatorMemory, FindsMisalignedAccesses) {
  const auto program = [](std::int64_t first) {
    return [=] {
      TestStream stream;
      TestFloats x(stream, 16);
      const Global<float> g = x;
      fill_in(stream, x, 16, 1);
      run_kernel_in(stream, "vectors", 1, [=](int) { g.load_as<float4>(first); });
      EXPECT_EQ(cudaStreamSynchronize(stream),
                first % 4 == 0 ? cudaSuccess : cudaErrorMisalignedAddress);
    };
  };
  expect_found(FaultKind::kMisaligned, {"read of 16 bytes", "offset 8", "not a multiple of 16"},
               program(2));
  expect_clean(program(4));
}

TEST(EmulatorMemory, FindsReadsOfFreshMemory) {
  const auto program = [](int written) {
    return [=] {
      TestStream stream;
      TestFloats x(stream, 8), y(stream, 8);
      fill_in(stream, x, written, 1);
      increment_in(stream, y, x, 8);
      cudaStreamSynchronize(stream);
    };
  };
  expect_found(FaultKind::kUninitialised,
               {"kernel incrementer", "offset 28 of an allocation of 32 bytes", "never written"},
               program(7));
  expect_clean(program(8));
}

TEST(EmulatorMemory, KnowsWhichBytesOfAWordAreWritten) {
  const auto program = [](int halves) {
    return [=] {
      TestStream stream;
      TestFloats x(stream, 1), y(stream, 1);
      const Global<__nv_bfloat16> g(reinterpret_cast<__nv_bfloat16*>(x.get()));
      run_kernel_in(stream, "halves", 1, [=](int) {
        for (int i = 0; i < halves; ++i) g.store(i, __float2bfloat16_rn(1));
      });
      increment_in(stream, y, x, 1);
      cudaStreamSynchronize(stream);
    };
  };
  expect_found(FaultKind::kUninitialised, {"byte 2 was never written"}, program(1));
  expect_clean(program(2));
}

TEST(EmulatorMemory, FindsUseAfterFree) {
  expect_found(FaultKind::kUseAfterFree,
               {"kernel filler", "what was an allocation of 32 bytes", "freed by free of 32 bytes"},
               [] {
                 TestStream stream;
                 float* x = nullptr;
                 cudaMallocAsync(&x, 32, stream);
                 cudaFreeAsync(x, stream);
                 fill_in(stream, Global<float>(x), 8, 1);
                 EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
               });
}

TEST(EmulatorMemory, FindsUseAfterPlainFree) {
  expect_found(FaultKind::kUseAfterFree, {"freed by the host"}, [] {
    TestStream stream;
    float* x = nullptr;
    cudaMalloc(&x, 32);
    cudaFree(x);
    fill_in(stream, Global<float>(x), 8, 1);
    cudaStreamSynchronize(stream);
  });
}

TEST(EmulatorMemory, ReusesFreedMemoryInStreamOrder) {
  int same = 0;
  expect_clean([&] {
    TestStream stream;
    const float* first = nullptr;
    {
      TestFloats x(stream, 64);
      fill_in(stream, x, 64, 1);
      first = x.get();
    }
    TestFloats y(stream, 64);  // before anything has run
    same += y.get() == first ? 1 : 0;
    fill_in(stream, y, 64, 2);
    EXPECT_EQ(download(stream, y.get(), 64)[63], 2);
  });
  EXPECT_GT(same, 0);
  EXPECT_LT(same, static_cast<int>(kRuntimeSeeds));
}

TEST(EmulatorMemory, FindsDoubleFrees) {
  for (const bool in_order : {false, true}) {
    expect_found(FaultKind::kApi, {"no live allocation begins there"}, [&] {
      TestStream stream;
      float* x = nullptr;
      cudaMallocAsync(&x, 32, stream);
      cudaFreeAsync(x, stream);
      EXPECT_EQ(in_order ? cudaFreeAsync(x, stream) : cudaFree(x), cudaErrorInvalidValue);
    });
  }
}

TEST(EmulatorMemory, SaysWhenItIsFull) {
  emulator::configure({});
  void* all = nullptr;
  EXPECT_EQ(cudaMalloc(&all, std::size_t{1} << 31), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_FALSE(emulator::take_fault().found);
}

// ---- Blocks of one launch ----------------------------------------------------------------------

TEST(EmulatorMemory, FindsBlocksThatWriteTheSame) {
  const auto program = [](int stride) {
    return [=] {
      TestStream stream;
      TestFloats x(stream, 64);
      const Global<float> g = x;
      run_kernel_in(stream, "blocks", 4, [=](int block) { g.store(block * stride, 1.0f); });
      cudaStreamSynchronize(stream);
    };
  };
  expect_found(FaultKind::kBlockRace, {"kernel blocks", "wrote it in the same launch"}, program(0));
  expect_clean(program(1));
}

TEST(EmulatorMemory, FindsBlocksThatReadWhatOthersWrite) {
  const auto program = [](int shift) {
    return [=] {
      TestStream stream;
      TestFloats x(stream, 8);
      const Global<float> g = x;
      fill_in(stream, x, 8, 1);
      run_kernel_in(stream, "blocks", 4, [=](int block) { g.store(block, g.load(block + shift)); });
      cudaStreamSynchronize(stream);
    };
  };
  expect_found(FaultKind::kBlockRace, {"in the same launch"}, program(1));
  expect_clean(program(0));
  expect_clean(program(4));
}

TEST(EmulatorMemory, LetsBlocksShareAWordByHalves) {
  expect_clean([] {
    TestStream stream;
    TestFloats x(stream, 2);
    const Global<__nv_bfloat16> g(reinterpret_cast<__nv_bfloat16*>(x.get()));
    run_kernel_in(stream, "halves", 4, [=](int block) {
      g.store(block, __float2bfloat16_rn(static_cast<float>(block)));
    });
    cudaStreamSynchronize(stream);
  });
}

TEST(EmulatorMemory, LetsBlocksAddAtomically) {
  const auto program = [](bool plain) {
    return [=] {
      TestStream stream;
      TestFloats x(stream, 1);
      const Global<float> g = x;
      cudaMemsetAsync(x.get(), 0, 4, stream);
      run_kernel_in(stream, "adders", 5, [=](int block) {
        if (block == 2 && plain) {
          g.store(0, g.load() + 1);
        } else {
          g.add(0, 1);
        }
      });
      cudaStreamSynchronize(stream);
      if (!plain) {
        EXPECT_EQ(download(stream, x.get(), 1)[0], 5);
      }
    };
  };
  expect_found(FaultKind::kBlockRace, {"in the same launch"}, program(true));
  expect_clean(program(false));
}

TEST(EmulatorMemory, FindsReadsOfSumsThatOthersStillMake) {
  expect_found(FaultKind::kBlockRace, {"in the same launch"}, [] {
    TestStream stream;
    TestFloats x(stream, 1);
    const Global<float> g = x;
    cudaMemsetAsync(x.get(), 0, 4, stream);
    run_kernel_in(stream, "adders", 3, [=](int) {
      g.add(0, 1);
      g.load();
    });
    cudaStreamSynchronize(stream);
  });
}

// ---- The host ----------------------------------------------------------------------------------

TEST(EmulatorMemory, HostViewShowsAndChanges) {
  expect_clean([] {
    TestStream stream;
    TestFloats x(stream, 4);
    cudaStreamSynchronize(stream);
    const std::vector<float> values = {1, 2, 3, 4};
    std::memcpy(emulator::host_view(x.get(), 16, /*writes=*/true), values.data(), 16);
    increment_in(stream, x, x, 4);
    cudaStreamSynchronize(stream);
    float last = 0;
    std::memcpy(&last, emulator::host_view(x.get() + 3, 4, /*writes=*/false), 4);
    EXPECT_EQ(last, 5);
  });
}

TEST(EmulatorMemory, HostViewNeedsAnIdleDevice) {
  emulator::configure({});
  TestStream stream;
  TestFloats x(stream, 4);
  try {
    emulator::host_view(x.get(), 16, false);
    ADD_FAILURE() << "no fault";
  } catch (const emulator::Fault& fault) {
    EXPECT_NE(std::string(fault.what()).find("allocation of 16 bytes"), std::string::npos);
  }
  cudaStreamSynchronize(stream);
  EXPECT_THROW(emulator::host_view(x.get(), 17, false), emulator::Fault);
}

TEST(EmulatorMemoryDeath, HostAccessEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  emulator::configure({});
  float* x = nullptr;
  cudaMalloc(&x, 64);
  EXPECT_DEATH(
      {
        volatile float* touched = x + 3;
        *touched = 1;
      },
      "the host touched memory of device 0: offset 12 of an allocation of 64 bytes");
  cudaFree(x);
}

}  // namespace
}  // namespace sp::emulated
