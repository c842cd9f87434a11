// Ranks for tests of the communicators of GPUs: threads, over the emulator's NCCL or by copies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness/emulator/emulator.hpp"
#include "harness/run/rank_failures.hpp"
#include "optimized/comm/local/local_world.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"
#include "optimized/kernels/cuda/cuda_memory.hpp"

namespace sp::test {

using namespace std::chrono_literals;
using SP_GPU::CudaMemory;
using SP_GPU::Gpu;
using SP_GPU::join_world;
using SP_GPU::LocalWorld;

using Floats = std::vector<float>;

struct Rank {
  Gpu& gpu;
  Communicator& comm;
  CommunicationMeter& meter;
  CudaMemory& memory;

  Tensor blank(std::int64_t rows) const {
    return memory.allocate(DType::kF32, {rows, 1, 1, 2}, "blank");
  }
  // Rows of two numbers that tell who wrote them.
  Tensor written(std::int64_t rows, int author, int step = 0) const {
    const Tensor tensor = memory.allocate(DType::kF32, {rows, 1, 1, 2}, "written");
    memory.upload(tensor, values(rows, author, step).data());
    return tensor;
  }
  static Floats values(std::int64_t rows, int author, int step = 0) {
    Floats result;
    for (std::int64_t i = 0; i < 2 * rows; ++i) {
      result.push_back(static_cast<float>(1000 * author + 100 * step + i + 1));
    }
    return result;
  }
  Floats read(const Tensor& tensor) const {
    Floats values(static_cast<std::size_t>(tensor.elements()));
    memory.download(values.data(), tensor);
    return values;
  }
  int next() const { return (comm.rank() + 1) % comm.size(); }
  int previous() const { return (comm.rank() + comm.size() - 1) % comm.size(); }
};

struct Setting {
  int devices;  // 0: over NCCL
  int ranks;
  bool pools_are_shared = true;
  bool local() const { return devices > 0; }
};
inline std::string name_of(const testing::TestParamInfo<Setting>& info) {
  const std::string ranks = std::to_string(info.param.ranks);
  return info.param.local() ? "copies_" + ranks + "_on_" + std::to_string(info.param.devices)
                            : "nccl_" + ranks;
}

class GpuCommunicators : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    emulator::configure({});
    SP_GPU::device_count();
  }
  void TearDown() override {
    const emulator::FaultReport left = emulator::take_fault();
    EXPECT_FALSE(left.found) << left.what;
  }

  using Body = std::function<void(Rank&)>;

  // Runs the body on every rank and throws its first failure. Nothing may be left on a device.
  static void run(const Setting& setting, const Body& body, std::chrono::milliseconds limit = 20s) {
    setting.local() ? run_locally(setting, body, limit) : run_over_nccl(setting.ranks, body, limit);
  }
  static void run(const Body& body) { run(GetParam(), body); }

  static void run_body(Gpu& gpu, const GpuWorld& world, const Body& body) {
    CudaMemory memory(gpu);
    Rank rank{gpu, *world.comm, *world.meter, memory};
    body(rank);
    gpu.synchronize();
    EXPECT_EQ(memory.live_bytes(), 0);
  }

  static void run_over_nccl(int ranks, const Body& body, std::chrono::milliseconds limit) {
    const ncclUniqueId id = SP_GPU::make_world_id();
    RankFailures failures;
    {
      std::vector<std::jthread> threads;
      for (int r = 0; r < ranks; ++r) {
        threads.emplace_back([&, r] {
          try {
            Gpu gpu(r, ranks);
            const GpuWorld world =
                join_world(gpu, id, r, ranks, limit, std::make_shared<Traffic>(), failures.flag());
            try {
              run_body(gpu, world, body);
            } catch (...) {
              failures.record(r);
              throw;
            }
          } catch (...) {
            failures.record(r);
          }
        });
      }
    }
    for (int r = 0; r < ranks; ++r) EXPECT_EQ(emulator::live_objects(r).total(), 0);
    if (failures.any()) failures.rethrow("");
  }

  static void run_locally(const Setting& setting, const Body& body,
                          std::chrono::milliseconds limit) {
    LocalWorld local(setting.ranks, limit);
    {
      std::vector<std::jthread> threads;
      for (int r = 0; r < setting.ranks; ++r) {
        threads.emplace_back([&, r] {
          try {
            Gpu gpu(r % setting.devices, setting.pools_are_shared ? setting.devices : 1);
            const GpuWorld world = local.join(gpu, r, std::make_shared<Traffic>());
            try {
              run_body(gpu, world, body);
              local.finish(r);
            } catch (...) {
              local.fail(r, std::current_exception());
            }
          } catch (...) {
            local.fail(r, std::current_exception());
          }
        });
      }
    }
    for (int d = 0; d < setting.devices; ++d) EXPECT_EQ(emulator::live_objects(d).total(), 0);
    local.rethrow_failure();
  }

  static std::string failure_of(const Setting& setting, const Body& body,
                                std::chrono::milliseconds limit = 20s) {
    try {
      run(setting, body, limit);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  static void expect_says(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words) {
      EXPECT_NE(text.find(word), std::string::npos) << word << " not in: " << text;
    }
  }
};

}  // namespace sp::test
