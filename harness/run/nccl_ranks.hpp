// Ranks that are threads of this process, one GPU each, and have met over NCCL: they run one body
// after the other, because a meeting takes NCCL a tenth of a second or more.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <vector>

#include "harness/run/gpu_machine.hpp"
#include "harness/run/rank_failures.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"

namespace sp::SP_GPU {

class NcclRanks {
 public:
  NcclRanks(int ranks, std::chrono::milliseconds time_limit)
      : time_limit_(time_limit), members_(static_cast<std::size_t>(ranks)) {}
  ~NcclRanks() { leave(); }
  NcclRanks(const NcclRanks&) = delete;
  NcclRanks& operator=(const NcclRanks&) = delete;

  // Meets first, the first time. After a failure nothing is left but its reason.
  void run(const Rig& rig, const std::function<void(Machine&)>& body);
  // All communicators end together, each in the thread of its rank.
  void leave();
  const RankFailures& failures() const { return failures_; }

 private:
  // In the order of their making: the GPU outlives its communicators.
  struct Member {
    std::unique_ptr<Gpu> gpu;
    GpuWorld world;
  };
  int size() const { return static_cast<int>(members_.size()); }
  void meet(int rank, const ncclUniqueId& id, std::latch& ready, std::latch& joined);

  std::chrono::milliseconds time_limit_;
  RankFailures failures_;
  std::vector<Member> members_;
  bool met_ = false;
};

}  // namespace sp::SP_GPU
