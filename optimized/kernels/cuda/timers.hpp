// Pairs of events around what is to be timed on a stream; pairs are used again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include "optimized/kernels/cuda/gpu.hpp"

namespace sp::SP_GPU {

// An event of the current device; `flags` as CUDA's.
cudaEvent_t make_event(unsigned flags);

class Timers {
 public:
  using Timer = std::pair<cudaEvent_t, cudaEvent_t>;

  Timers() = default;
  ~Timers();
  Timers(const Timers&) = delete;
  Timers& operator=(const Timers&) = delete;

  Timer take();
  void put_back(const Timer& timer) { idle_.push_back(timer); }
  // The seconds of all, which are put back; their ends have been reached.
  double seconds_of(std::vector<Timer>& timers);

 private:
  std::vector<Timer> idle_;
};

void record(cudaEvent_t event, cudaStream_t stream);

}  // namespace sp::SP_GPU
