// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/timers.hpp"

namespace sp::SP_GPU {

cudaEvent_t make_event(unsigned flags) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  return event;
}

void record(cudaEvent_t event, cudaStream_t stream) {
  check(cudaEventRecord(event, stream), "cudaEventRecord");
}

Timers::~Timers() {
  for (const auto& [before, after] : idle_) {
    cudaEventDestroy(before);
    cudaEventDestroy(after);
  }
}

Timers::Timer Timers::take() {
  if (idle_.empty()) return {make_event(0), make_event(0)};
  const Timer timer = idle_.back();
  idle_.pop_back();
  return timer;
}

double Timers::seconds_of(std::vector<Timer>& timers) {
  double sum = 0;
  for (const auto& [before, after] : timers) {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, before, after), "cudaEventElapsedTime");
    sum += static_cast<double>(ms) / 1000;
  }
  idle_.insert(idle_.end(), timers.begin(), timers.end());
  timers.clear();
  return sum;
}

}  // namespace sp::SP_GPU
