// Queries on the move around a ring of ranks whose keys stay, and the sums of their gradients one
// hop behind: the mirror image of ring_streams.hpp.
//
// Blocks go to rank + 1; at step t rank r holds the queries of rank r - t. Whole shards travel,
// empty ones too. Collective over the context's communicator.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "optimized/algorithms/attention_pass.hpp"

namespace sp {

// The queries of one rank after the other, with what belongs to them.
class QueryStream {
 public:
  QueryStream(Context& ctx, const Shards& in, Queries own);
  int owner(int step) const;  // whose queries are held at a step
  const Queries& held() const { return held_; }
  void post(int step);  // passes `held` on and receives the queries of the next step
  void advance(int step);

 private:
  Context& ctx_;
  const Layout& layout_;
  Queries held_, next_;
  std::array<Queries, 2> buffers_;
  Pending pending_;
};
// What a stream of rows of `row` bytes sends from `rank`.
std::int64_t query_stream_bytes(const Layout& layout, int rank, std::int64_t row);

// The sum over ranks of the gradients of queries, in the accumulator type. The owner keeps its own
// share, the next rank begins the sum: P - 1 hops bring it home. The send of step s hides behind
// the kernel of step s + 1.
class QueryGradientStream {
 public:
  QueryGradientStream(Context& ctx, const Shards& in, const QueryStream& queries);
  Tensor fresh(int step);  // zeros, for this rank's share in the queries of a step > 0
  void pass(int step, const Tensor& share);
  const Tensor& home();  // after the last step: the shares of all others; P > 1

 private:
  Context& ctx_;
  const Layout& layout_;
  const QueryStream& queries_;
  std::array<Tensor, 2> shares_;
  Tensor incoming_, home_;
  Pending pending_;
};

}  // namespace sp
