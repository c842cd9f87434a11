// Key/value blocks and their gradients on the move around a ring: the streams that ring-like
// algorithms are made of.
//
// A ring goes over the ranks of a communicator, and its layout says which tokens each of them has. A
// lane is a part of every block that travels in one direction; with two lanes, half of every run of
// tokens goes each way. Collective over the ring's communicators.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "optimized/algorithms/attention_pass.hpp"

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
  int direction = 1;     // blocks go to rank + direction
  int lane = 0, lanes = 1;
  // A block goes around rings of this many consecutive ranks, one after the other: from the last one
  // it visits in a ring to the next rank of the next ring. 0: one ring of all.
  int inner = 0;
};

class Lane {
 public:
  Lane(Context& ctx, const Shards& in, const Ring& ring, const Layout& layout)
      : ctx_(ctx), in_(in), ring_(ring), layout_(layout) {}

  int steps() const { return ring_.k_comm.size(); }
  // The rank whose keys are held at a step, and their positions.
  int origin(int step) const;
  Tokens tokens(int step) const;
  KeyValue allocate(DType dtype, const char* k_name, const char* v_name) const;
  KeyValue own() const;  // this rank's block: the shard itself, or a packed copy of its lane
  // Copies the lane's rows back to where they belong in the shard, casting.
  void unpack(const KeyValue& shard, const KeyValue& lane) const;
  // Passes `held`, the block of `step`, on and receives the block of step + 1 in `next`.
  std::array<Pending, 2> pass(const KeyValue& held, const KeyValue& next, Label k, Label v) const;
  void set_layout(const Layout& layout) { layout_ = layout; }

 private:
  int inner() const { return ring_.inner > 0 ? ring_.inner : steps(); }
  int at(int rings, int ranks_in_ring) const;
  template <class F>
  void for_each_run(F&& f) const;

  Context& ctx_;
  const Shards& in_;
  Ring ring_;
  Layout layout_;
};

// The key/value blocks of one lane as they come by: post the next, use the held one, advance.
class KeyStream {
 public:
  // Over all ranks of `in`, or over those of a mesh's axis, with their layout.
  KeyStream(Context& ctx, const Shards& in, const Ring& ring)
      : KeyStream(ctx, in, ring, in.layout) {}
  KeyStream(Context& ctx, const Shards& in, const Ring& ring, const Layout& layout);
  void post(int step);
  void advance(int step);
  // Goes around again, from step 0, with other blocks: this rank's, and where all of them lie.
  void restart(const KeyValue& own, const Layout& layout);
  const KeyValue& held() const { return held_; }
  const Lane& lane() const { return lane_; }

 private:
  Lane lane_;
  KeyValue held_, next_;
  std::array<KeyValue, 2> buffers_;
  std::array<Pending, 2> pending_;
};

// What the rank at this place of a ring of one lane sends of its blocks: all but the last, which ends
// here; gradients go all the way home.
Traffic key_traffic(const Layout& ring, int place, const Freight& keys);
Traffic key_gradient_traffic(const Layout& ring, const Freight& gradients);

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

// A stream of key blocks, in backward with the sums of their gradients one hop behind.
template <class Stream>
class KeyRing {
 public:
  KeyRing(Context& ctx, const Shards& in, Stream stream, bool backward)
      : stream_(std::move(stream)) {
    if (backward) sums_.emplace(ctx, in, stream_.lane());
  }

  const Lane& lane() const { return stream_.lane(); }
  void post(int step) { stream_.post(step); }
  Keys keys(int step) {  // those held at the step, in backward with zeros to add to
    Keys keys{lane().tokens(step), stream_.held().k, stream_.held().v};
    if (!sums_) return keys;
    const KeyValue fresh = sums_->fresh(step);
    keys.d_k = fresh.k;
    keys.d_v = fresh.v;
    return keys;
  }
  void pass(int step, const Keys& keys) {  // the gradients, once all is added
    if (sums_) sums_->pass(step, {keys.d_k, keys.d_v});
  }
  void advance(int step) { stream_.advance(step); }
  const KeyValue& home() { return sums_->home(); }  // backward, after the last step

 private:
  Stream stream_;
  std::optional<GradientStream> sums_;
};

// The own queries meet every block that comes by on these rings, which are stepped together.
template <class Stream>
void go_round(AttentionPass& pass, std::span<KeyRing<Stream>> rings, int steps) {
  pass.open();
  for (int step = 0; step < steps; ++step) {
    for (KeyRing<Stream>& ring : rings) ring.post(step);
    for (KeyRing<Stream>& ring : rings) {
      const Keys keys = ring.keys(step);
      pass.attend(keys);
      ring.pass(step, keys);
    }
    for (KeyRing<Stream>& ring : rings) ring.advance(step);
  }
}

}  // namespace sp
