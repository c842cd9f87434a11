// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/ring_streams.hpp"

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"

namespace sp {
namespace {

// The rows of a shard that travel in one lane: all, or a part of every run (zigzag stays balanced).
std::vector<Rows> lane_rows(const Tokens& tokens, int lane, int lanes) {
  std::vector<Rows> rows;
  std::int64_t offset = 0;
  for (const Run& run : tokens.runs()) {
    rows.push_back({offset + part_begin(run.count, lanes, lane),
                    offset + part_begin(run.count, lanes, lane + 1)});
    offset += run.count;
  }
  return rows;
}

void wait(std::array<Pending, 2>& pending) {
  for (Pending& each : pending) each.wait();
}

}  // namespace

Tokens lane_tokens(const Layout& layout, int rank, int lane, int lanes) {
  const Tokens all = layout.tokens(rank);
  Tokens part;
  for (const Rows rows : lane_rows(all, lane, lanes)) part.append(all.slice(rows.begin, rows.end));
  return part;
}

std::int64_t largest_lane(const Layout& layout, int lane, int lanes) {
  std::int64_t most = 0;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    most = std::max(most, lane_tokens(layout, rank, lane, lanes).count());
  }
  return most;
}

// The rank so many rings and so many ranks inside the ring further on.
int Lane::at(int rings, int ranks_in_ring) const {
  const auto wrapped = [](int value, int size) { return (value % size + size) % size; };
  const int rank = ring_.k_comm.rank(), size = inner();
  return wrapped(rank / size + rings, steps() / size) * size +
         wrapped(rank % size + ranks_in_ring, size);
}

int Lane::origin(int step) const {
  return at(-ring_.direction * (step / inner()), -ring_.direction * (step % inner()));
}

Tokens Lane::tokens(int step) const {
  return lane_tokens(layout_, origin(step), ring_.lane, ring_.lanes);
}

KeyValue Lane::allocate(DType dtype, const char* k_name, const char* v_name) const {
  const std::int64_t rows = largest_lane(in_.layout, ring_.lane, ring_.lanes);
  return {allocate_like(ctx_, in_.k, dtype, rows, k_name),
          allocate_like(ctx_, in_.v, dtype, rows, v_name)};
}

// f(rows of the lane's block, rows of the shard) for every run of this rank.
template <class F>
void Lane::for_each_run(F&& f) const {
  std::int64_t offset = 0;
  for (const Rows shard : lane_rows(layout_.tokens(ring_.k_comm.rank()), ring_.lane, ring_.lanes)) {
    f(Rows{offset, offset + shard.count()}, shard);
    offset += shard.count();
  }
}

KeyValue Lane::own() const {
  if (ring_.lanes == 1) return {in_.k, in_.v};
  const KeyValue packed = allocate(in_.problem.dtype, "k", "v").rows(tokens(0).count());
  for_each_run([&](Rows local, Rows shard) {
    ctx_.kernels.copy(packed.k.rows(local.begin, local.end), in_.k.rows(shard.begin, shard.end));
    ctx_.kernels.copy(packed.v.rows(local.begin, local.end), in_.v.rows(shard.begin, shard.end));
  });
  return packed;
}

void Lane::unpack(const KeyValue& to, const KeyValue& from) const {
  for_each_run([&](Rows local, Rows shard) {
    ctx_.kernels.copy(to.k.rows(shard.begin, shard.end), from.k.rows(local.begin, local.end));
    ctx_.kernels.copy(to.v.rows(shard.begin, shard.end), from.v.rows(local.begin, local.end));
  });
}

std::array<Pending, 2> Lane::pass(const KeyValue& held, const KeyValue& next, Label k,
                                  Label v) const {
  const int rings = (k.step + 1) % inner() == 0 ? ring_.direction : 0;
  const int to = at(rings, ring_.direction), from = at(-rings, -ring_.direction);
  if (&ring_.v_comm == &ring_.k_comm) {
    return {ring_.k_comm.exchange({{to, held.k, k}, {to, held.v, v}},
                                  {{from, next.k, k}, {from, next.v, v}}),
            Pending()};
  }
  return {ring_.k_comm.exchange({{to, held.k, k}}, {{from, next.k, k}}),
          ring_.v_comm.exchange({{to, held.v, v}}, {{from, next.v, v}})};
}

KeyStream::KeyStream(Context& ctx, const Shards& in, const Ring& ring, const Layout& layout)
    : lane_(ctx, in, ring, layout), held_(lane_.own()) {
  for (int buffer = 0; buffer < std::min(lane_.steps() - 1, 2); ++buffer) {
    buffers_[static_cast<std::size_t>(buffer)] = lane_.allocate(in.problem.dtype, "k", "v");
  }
}

void KeyStream::post(int step) {
  if (step + 1 == lane_.steps()) return;
  next_ = buffers_[static_cast<std::size_t>(step % 2)].rows(lane_.tokens(step + 1).count());
  pending_ = lane_.pass(held_, next_, {"k", step}, {"v", step});
}

void KeyStream::advance(int step) {
  if (step + 1 == lane_.steps()) return;
  wait(pending_);
  held_ = next_;
}

void KeyStream::restart(const KeyValue& own, const Layout& layout) {
  held_ = own;
  lane_.set_layout(layout);
}

Traffic key_traffic(const Layout& ring, int place, const Freight& keys) {
  Traffic traffic;
  for (int source = 0; source < ring.ranks(); ++source) {
    if (source != (place + 1) % ring.ranks())
      traffic += {ring.count(source) * keys.bytes, keys.messages};
  }
  return traffic;
}

Traffic key_gradient_traffic(const Layout& ring, const Freight& gradients) {
  Traffic traffic;
  for (int source = 0; ring.ranks() > 1 && source < ring.ranks(); ++source)
    traffic += {ring.count(source) * gradients.bytes, gradients.messages};
  return traffic;
}

GradientStream::GradientStream(Context& ctx, const Shards& in, const Lane& lane)
    : ctx_(ctx), lane_(lane) {
  const DType dtype = accumulator_of(in.problem.dtype);
  for (int buffer = 0; buffer < std::min(lane_.steps(), 2); ++buffer) {
    blocks_[static_cast<std::size_t>(buffer)] = lane_.allocate(dtype, "d_k", "d_v");
  }
  if (lane_.steps() > 1) incoming_ = lane_.allocate(dtype, "d_k", "d_v");
}

KeyValue GradientStream::fresh(int step) {
  KeyValue share = blocks_[static_cast<std::size_t>(step % 2)].rows(lane_.tokens(step).count());
  ctx_.kernels.fill(share.k, 0);
  ctx_.kernels.fill(share.v, 0);
  return share;
}

void GradientStream::pass(int step, const KeyValue& share) {
  home_ = share;
  if (lane_.steps() == 1) return;
  if (step > 0) {
    wait(pending_);
    const KeyValue sum = incoming_.rows(share.k.extent(0));
    ctx_.kernels.add(share.k, sum.k);
    ctx_.kernels.add(share.v, sum.v);
  }
  home_ = incoming_.rows(lane_.tokens((step + 1) % lane_.steps()).count());
  pending_ = lane_.pass(share, home_, {"d_k", step}, {"d_v", step});
}

const KeyValue& GradientStream::home() {
  wait(pending_);
  return home_;
}

}  // namespace sp
