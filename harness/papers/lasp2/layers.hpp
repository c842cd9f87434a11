// The attention layer of LASP-2's model on a simulated machine, as its replays ask for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/papers/replay.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// Of the keys `platform`, `layers`, `heads` and `head_size` of a config. Basic linear attention,
// batch 1, bf16.
struct Lasp2Model {
  explicit Lasp2Model(const ReplayContext& context);

  Shape shape(std::int64_t tokens) const { return {1, tokens, heads, heads, head_size, head_size}; }
  Prediction layer(const Platform& on, const Algorithm& algorithm, const Shape& shape, int ranks,
                   int splits = 1) const;
  Prediction layer(const Algorithm& algorithm, std::int64_t tokens, int ranks) const {
    return layer(platform, algorithm, shape(tokens), ranks);
  }

  Platform platform;
  std::int64_t layers, heads, head_size;
};

// A length as papers write it: "2048K".
std::string kibi(std::int64_t tokens);

// LASP-2's predecessor as LASP-2's algorithm 6 prints it: a rank applies the state that it received
// to its queries before it passes it on. kLasp1 passes it on first.
extern const Algorithm kLasp1Printed;
// The state of every rank travels the ring, in P-1 hops that wait for each other.
extern const Algorithm kStateRing;

}  // namespace sp
