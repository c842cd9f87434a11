// The window part of Based inside lasp2: softmax attention over the last tokens, with a halo.
//
// A rank fetches the keys and values of the window - 1 tokens before its chunk from the ranks that
// own them, and sends their gradients back. Without a window every step does nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

class WindowAttention {
 public:
  WindowAttention(Context& ctx, const Shards& in);
  bool present() const { return in_.mask.band.window > 0; }

  void attend_own();  // posts the halo and attends to the chunk's own keys while it travels
  // Adds the halo's share and the linear part, whose sums and state it keeps as LinearChunk does.
  Forward finish(const Tensor& sums, const Tensor& before);
  void backward(const Forward& saved, const Tensor& d_out, const LinearGradients& gradients) const;

 private:
  Context& ctx_;
  const Shards& in_;
  Tokens mine_, halo_;
  Tensor k_, v_;  // of the halo
  Partial result_;
  Pending pending_;
};

Cost window_cost(const Problem& problem, const Layout& layout, int rank);

}  // namespace sp
