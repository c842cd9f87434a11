// SimCluster: what the ranks of one simulation share, and the run of their bodies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "harness/cluster/engine.hpp"
#include "harness/cluster/platform.hpp"
#include "harness/trace/timeline.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

struct SimRank {
  double compute_s = 0, waiting_s = 0;  // so far
  int channels = 0;                     // of communicators that it is a member of
  bool finished = false;
  std::function<std::string()> waits;  // what for, in words; empty: for nothing
};

class SimCluster {
 public:
  // Throws Error(kUsage) for ranks that the platform has no devices for. placement as in
  // SimulationOptions; the platform must outlive this.
  SimCluster(const Platform& platform, int ranks, std::vector<int> placement, Timeline* timeline);

  int size() const { return static_cast<int>(ranks_.size()); }
  const Platform& platform() const { return platform_; }
  const WireMap& wires() const { return wires_; }
  int device(int rank) const { return devices_[static_cast<std::size_t>(rank)]; }
  SimRank& rank(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
  SimEngine& engine() { return engine_; }

  // Runs body(rank) on every rank. Throws the first failure, with its rank; an OutOfMemory as it is.
  void run(const std::function<void(int)>& body);

  // In bodies: waits until everybody has come; takes no time.
  void meet(int rank);
  void trace(Span span);
  bool traced() const { return timeline_ != nullptr; }

 private:
  std::string describe_all_ranks() const;
  void fail(int rank);

  const Platform& platform_;
  std::vector<int> devices_;
  WireMap wires_;
  SimEngine engine_;
  std::vector<SimRank> ranks_;
  Timeline* timeline_;
  int met_ = 0;
  std::vector<Gate> meeting_;  // one per rank
  std::exception_ptr failure_;
  int failed_rank_ = -1;
  std::string stuck_;
};

// Charges the time of every kernel of a rank on its device.
class SimClock final : public KernelObserver {
 public:
  SimClock(SimCluster& cluster, int rank) : cluster_(cluster), rank_(rank) {}
  void before(const Charge& charge, std::span<const Tensor> reads,
              std::span<const Tensor> writes) override;

 private:
  SimCluster& cluster_;
  int rank_;
};

}  // namespace sp
