// Key/value blocks and their gradients on the move around a ring: the streams that ring-like
// algorithms are made of.
//
// A ring has P places; place i belongs to global rank `offset + i * stride`. A lane is a part of
// every block that travels in one direction; with two lanes, half of every run of tokens goes each
// way. Collective over the ring's communicators.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// Tokens of `rank` that travel in `lane` of `lanes`.
Tokens lane_tokens(const Layout& layout, int rank, int lane, int lanes);
// Most tokens that any rank has in this lane.
std::int64_t largest_lane(const Layout& layout, int lane, int lanes);

// A pair of tensors that travel together: (K, V) or (dK, dV).
struct KeyValue {
  Tensor k, v;
  KeyValue rows(std::int64_t count) const { return {k.rows(0, count), v.rows(0, count)}; }
};

// Where and how one lane travels.
struct Ring {
  Communicator& k_comm;
  Communicator& v_comm;  // the same as k_comm, or a second channel over the same ranks
  int direction = 1;     // blocks go to place + direction
  int lane = 0, lanes = 1;
  int stride = 1, offset = 0;  // place to global rank
  // A block goes around rings of this many consecutive places, one after the other: from the last
  // one it visits in a ring to the next place of the next ring. 0: one ring of all.
  int inner = 0;
};

class Lane {
 public:
  Lane(Context& ctx, const Shards& in, const Ring& ring) : ctx_(ctx), in_(in), ring_(ring) {}

  int places() const { return ring_.k_comm.size(); }
  // The place whose keys are held at a step.
  int origin(int step) const;
  Tokens tokens(int step) const;
  KeyValue allocate(DType dtype, const char* k_name, const char* v_name) const;
  KeyValue own() const;  // this rank's block: the shard itself, or a packed copy of its lane
  // Copies the lane's rows back to where they belong in the shard, casting.
  void unpack(const KeyValue& shard, const KeyValue& lane) const;
  // Passes `held`, the block of `step`, on and receives the block of step + 1 in `next`.
  std::array<Pending, 2> pass(const KeyValue& held, const KeyValue& next, Label k, Label v) const;
  void set_offset(int offset) { ring_.offset = offset; }

 private:
  int inner() const { return ring_.inner > 0 ? ring_.inner : places(); }
  int at(int rings, int places_in_ring) const;
  template <class F>
  void for_each_run(F&& f) const;

  Context& ctx_;
  const Shards& in_;
  Ring ring_;
};

// The key/value blocks of one lane as they come by: post the next, use the held one, advance.
class KeyStream {
 public:
  KeyStream(Context& ctx, const Shards& in, const Ring& ring);
  void post(int step);
  void advance(int step);
  // Goes around again, from step 0, with other blocks: this rank's, and the ring's new offset.
  void restart(const KeyValue& own, int offset);
  const KeyValue& held() const { return held_; }
  const Lane& lane() const { return lane_; }

 private:
  Lane lane_;
  KeyValue held_, next_;
  std::array<KeyValue, 2> buffers_;
  std::array<Pending, 2> pending_;
};

// The gradients of one lane's key blocks, in the accumulator type: each rank adds its share and
// passes the sum on, one hop behind the keys, so that the send of step s hides behind the kernel of
// step s + 1.
class GradientStream {
 public:
  GradientStream(Context& ctx, const Shards& in, const Lane& lane);
  KeyValue fresh(int step);  // zeros, for this rank's share
  void pass(int step, const KeyValue& share);
  const KeyValue& home();  // after the last step: the complete gradients of this rank's own keys

 private:
  Context& ctx_;
  Lane lane_;
  std::array<KeyValue, 2> blocks_;
  KeyValue incoming_, home_;
  std::array<Pending, 2> pending_;
};

}  // namespace sp
