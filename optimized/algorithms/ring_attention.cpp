// Ring Attention: exact softmax attention over a sequence sharded across P ranks; K and V travel
// around a ring.
//
// Paper      Liu, Zaharia, Abbeel, 2023, arXiv:2310.01889, Algorithm 1; Striped: Brandon et al.,
//            2023, arXiv:2311.09431.
// Pattern    P-1 exchanges of (K, V), each posted before the block of attention that hides it; in
//            backward another P hops of (dK, dV) in f32, the last of which brings them home.
// Sharding   contiguous, striped or zigzag: the same text, because kernels mask by global positions
//            and skip what is empty.
// Controls   ring_bidirectional: half of every key block each way. ring_two_channel: K and V on
//            separate communicators. Same bytes as ring; they are the comparison that TokenRing's
//            paper omits.
// Cost/rank  forward 2(P-1) c hkv elements sent, backward as much plus 2P c hkv in f32 (c = N/P,
//            hkv = G D).
// Memory     accumulator, one partial result, two (K, V) blocks: O(N/P).
// Invariant  After step s, acc equals attention of the local queries over the s+1 key blocks held
//            so far.
// Departs    Merges normalised partial results by log-sum-exp instead of carrying numerator and
//            maximum; carries and gradients stay in f32 over all hops. P-1 hops forward, not P (the
//            paper's code sends K, V home, unused).
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/ring_attention.hpp"

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

enum class Style : std::uint8_t { kOneWay, kBidirectional, kTwoChannel };

constexpr int lanes_of(Style style) { return style == Style::kBidirectional ? 2 : 1; }

// A communicator runs its operations one after the other: what is to move at once needs a second.
std::vector<KeyStream> key_streams(Context& ctx, const Shards& in, Style style) {
  Communicator& second = style == Style::kOneWay ? ctx.comm : ctx.comm.group("ring second", 0);
  std::vector<KeyStream> streams;
  for (int lane = 0; lane < lanes_of(style); ++lane) {
    Communicator& keys = lane == 0 ? ctx.comm : second;
    Communicator& values = style == Style::kTwoChannel ? second : keys;
    streams.emplace_back(ctx, in, Ring{keys, values, lane == 0 ? 1 : -1, lane, lanes_of(style)});
  }
  return streams;
}

template <Style kStyle>
Forward forward(Context& ctx, const Shards& in) {
  const Tokens queries = in.layout.tokens(ctx.comm.rank());
  Partial acc = empty_partial(ctx, in);
  const Partial part = allocate_partial(ctx, in, queries.count(), acc.out.dtype());
  std::vector<KeyStream> streams = key_streams(ctx, in, kStyle);
  for (int step = 0; step < ctx.comm.size(); ++step) {
    for (KeyStream& stream : streams) stream.post(step);
    for (KeyStream& stream : streams) {
      const Tokens keys = stream.lane().tokens(step);
      if (!any_visible(in.mask.band, queries, keys)) continue;
      ctx.kernels.attention(
          {in.q, stream.held().k, stream.held().v, queries, keys, in.mask, in.problem.scale}, part);
      ctx.kernels.merge(acc, part);
    }
    for (KeyStream& stream : streams) stream.advance(step);
  }
  return finish(ctx, in, acc);
}

Gradients collect(Context& ctx, const Shards& in, const Tensor& d_q,
                  std::vector<KeyStream>& streams, std::vector<GradientStream>& sums) {
  const DType dtype = in.problem.dtype;
  Gradients gradients{to_storage(ctx, d_q, dtype, "d_q"), {}, {}, {}, {}};
  if (streams.size() == 1) {
    gradients.d_k = to_storage(ctx, sums[0].home().k, dtype, "d_k");
    gradients.d_v = to_storage(ctx, sums[0].home().v, dtype, "d_v");
    return gradients;
  }
  gradients.d_k = allocate_like(ctx, in.k, dtype, in.k.extent(0), "d_k");
  gradients.d_v = allocate_like(ctx, in.v, dtype, in.v.extent(0), "d_v");
  for (std::size_t lane = 0; lane < streams.size(); ++lane) {
    streams[lane].lane().unpack({gradients.d_k, gradients.d_v}, sums[lane].home());
  }
  return gradients;
}

template <Style kStyle>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const Tokens queries = in.layout.tokens(ctx.comm.rank());
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const Tensor d_q = zeros(ctx, delta.dtype(), in.q.shape(), "d_q");
  std::vector<KeyStream> streams = key_streams(ctx, in, kStyle);
  std::vector<GradientStream> sums;
  for (const KeyStream& stream : streams) sums.emplace_back(ctx, in, stream.lane());
  for (int step = 0; step < ctx.comm.size(); ++step) {
    for (KeyStream& stream : streams) stream.post(step);
    for (std::size_t lane = 0; lane < streams.size(); ++lane) {
      const Tokens keys = streams[lane].lane().tokens(step);
      const KeyValue& held = streams[lane].held();
      const KeyValue block = sums[lane].fresh(step);
      if (any_visible(in.mask.band, queries, keys)) {
        ctx.kernels.attention_backward(
            {in.q, held.k, held.v, queries, keys, in.mask, in.problem.scale}, d_out, saved.lse,
            delta, {d_q, block.k, block.v});
      }
      sums[lane].pass(step, block);
    }
    for (KeyStream& stream : streams) stream.advance(step);
  }
  return collect(ctx, in, d_q, streams, sums);
}

template <Style kStyle>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t n = layout.count(rank), P = world.size;
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  constexpr int kLanes = lanes_of(kStyle);
  Cost cost;
  std::int64_t packed = 0, buffers = 0, blocks = 0;  // tokens held: own, received, gradients
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::int64_t largest = largest_lane(layout, lane, kLanes);
    if (kLanes > 1) packed += largest;
    buffers += largest * std::min(P - 1, std::int64_t{2});
    blocks += largest * (P == 1 ? 1 : 3);
    // Every block passes through except the one that ends here: that of the neighbour to whom this
    // rank sends.
    const int last = static_cast<int>((rank + (lane == 0 ? 1 : P - 1)) % P);
    for (int source = 0; P > 1 && source < P; ++source) {
      const std::int64_t rows = lane_tokens(layout, source, lane, kLanes).count();
      if (source != last) cost.forward.bytes_sent += rows * token.kv();
      cost.backward.bytes_sent += rows * token.acc_kv();
    }
  }
  cost.backward.bytes_sent += cost.forward.bytes_sent;
  cost.forward.messages_sent = kLanes * 2 * (P - 1);
  cost.backward.messages_sent = kLanes * (2 * (P - 1) + (P == 1 ? 0 : 2 * P));
  cost.forward.flops = forward_flops(problem, pairs);
  cost.backward.flops = backward_flops(problem, pairs);
  // The packed own block is let go once the next one is held: results meet it only if P = 1.
  const std::int64_t own = packed * token.kv(), late = P == 1 ? own : 0;
  const std::int64_t out = n * storage_bytes(problem, token.out);
  const std::int64_t results =
      n * (storage_bytes(problem, token.q) +
           (kLanes == 1 ? storage_bytes(problem, token.kv()) : token.kv()));
  cost.forward.peak_bytes =
      n * 2 * (token.acc_out + token.lse) + buffers * token.kv() + std::max(own, late + out);
  cost.backward.peak_bytes = n * (token.lse + token.acc_q) + buffers * token.kv() +
                             blocks * token.acc_kv() + std::max(own, late + results);
  return cost;
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

constexpr const char* kRingPaper = "Liu, Zaharia, Abbeel 2023, arXiv:2310.01889";

template <Style kStyle>
constexpr Algorithm describe(const char* id, const char* title, const char* paper,
                             const char* pattern, Sharding sharding) {
  return {id, title,    paper,        pattern,         Family::kSoftmax, sharding,
          1,  supports, cost<kStyle>, forward<kStyle>, backward<kStyle>};
}

}  // namespace

const Algorithm kRingContiguous = describe<Style::kOneWay>(
    "ring/contiguous", "Ring Attention", kRingPaper, "K, V around the ring", Sharding::kContiguous);
const Algorithm kRingStriped = describe<Style::kOneWay>("ring/striped", "Striped Attention",
                                                        "Brandon et al. 2023, arXiv:2311.09431",
                                                        "K, V around the ring", Sharding::kStriped);
const Algorithm kRingZigzag = describe<Style::kOneWay>("ring/zigzag", "Zigzag Ring Attention",
                                                       "zhuzilin/ring-flash-attention, issue 2",
                                                       "K, V around the ring", Sharding::kZigzag);
const Algorithm kRingBidirectionalZigzag = describe<Style::kBidirectional>(
    "ring_bidirectional/zigzag", "Bidirectional Ring Attention", "this project",
    "half of K, V each way around the ring", Sharding::kZigzag);
const Algorithm kRingTwoChannelZigzag = describe<Style::kTwoChannel>(
    "ring_two_channel/zigzag", "Two-channel Ring Attention", "this project",
    "K and V around the ring on two channels", Sharding::kZigzag);

}  // namespace sp
