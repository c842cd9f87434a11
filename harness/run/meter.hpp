// Measures what one rank does in one pass: bytes, messages, flops, memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "harness/run/backend.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// What a pass of one rank was measured to do.
struct MeasuredPass : PassCost {
  std::int64_t peak_bytes = 0;  // beyond what lived when it began
  bool operator==(const MeasuredPass&) const = default;
};
struct Measured {
  MeasuredPass forward, backward;
};

// Begins when it is made; one at a time per rank, because the peak of memory has one owner.
class Meter {
 public:
  explicit Meter(Machine& machine)
      : machine_(machine),
        traffic_(machine.comm.traffic()),
        flops_(machine.kernels.flops()),
        live_(machine.memory.live_bytes()) {
    machine.memory.reset_peak();
  }
  MeasuredPass read() const {
    const Traffic& now = machine_.comm.traffic();
    return {{now.bytes_sent - traffic_.bytes_sent, now.messages_sent - traffic_.messages_sent,
             machine_.kernels.flops() - flops_},
            machine_.memory.peak_bytes() - live_};
  }

 private:
  Machine& machine_;
  Traffic traffic_;
  std::int64_t flops_, live_;
};

}  // namespace sp
