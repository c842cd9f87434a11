// One simulated pass with its timeline, and what the replays of TokenRing ask of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/cluster/simulation.hpp"

namespace sp {

class TracedForward {
 public:
  // Throws Error(kUsage) for an unknown algorithm and one that does not run, with the reason.
  TracedForward(const Platform& platform, const std::string& algorithm, const Problem& problem,
                int ranks);

  int ranks() const { return static_cast<int>(prediction_.ranks.size()); }
  const Prediction& prediction() const { return prediction_; }
  const std::vector<Span>& spans() const { return spans_; }

  // Seconds that a device's kernels of this name took, in order: one per step for attention.
  std::vector<double> kernels(int rank, std::string_view name) const;
  // From the first byte to the last that a device sends or receives of a tensor at a step; 0 where
  // it exchanges none. K and V go together, and so do a result and its log-sum-exp.
  double exchange(int rank, std::string_view tensor, int step) const;
  // Of the longest message of that exchange.
  double most_bytes(int rank, std::string_view tensor, int step) const;
  // Since the device's first exchange began.
  double end_of_last(int rank, std::string_view kernel) const;
  double end(int rank) const;

 private:
  double begin(int rank) const;

  Prediction prediction_;
  std::vector<Span> spans_;
};

}  // namespace sp
