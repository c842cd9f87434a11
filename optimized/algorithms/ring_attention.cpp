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

#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

enum class Style : std::uint8_t { kOneWay, kBidirectional, kTwoChannel };

constexpr int lanes_of(Style style) { return style == Style::kBidirectional ? 2 : 1; }

// A communicator runs its operations one after the other: what is to move at once needs a second.
std::vector<KeyRing<KeyStream>> rings_of(Context& ctx, const Shards& in, Style style,
                                         bool backward) {
  Communicator& second = style == Style::kOneWay ? ctx.comm : ctx.comm.channel("ring second");
  std::vector<KeyStream> streams;
  for (int lane = 0; lane < lanes_of(style); ++lane) {
    Communicator& keys = lane == 0 ? ctx.comm : second;
    Communicator& values = style == Style::kTwoChannel ? second : keys;
    streams.emplace_back(ctx, in, Ring{keys, values, lane == 0 ? 1 : -1, lane, lanes_of(style)});
  }
  std::vector<KeyRing<KeyStream>> rings;
  for (KeyStream& stream : streams) rings.emplace_back(ctx, in, std::move(stream), backward);
  return rings;
}

template <Style kStyle>
Forward forward(Context& ctx, const Shards& in) {
  AttentionPass pass(ctx, in);
  auto rings = rings_of(ctx, in, kStyle, false);
  go_round(pass, std::span(rings), ctx.comm.size());
  return pass.finish();
}

template <Style kStyle>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  AttentionPass pass(ctx, in, saved, d_out);
  auto rings = rings_of(ctx, in, kStyle, true);
  go_round(pass, std::span(rings), ctx.comm.size());
  return pass.finish([&] {
    if (rings.size() == 1) return rings[0].home();
    const DType dtype = in.problem.dtype;
    const KeyValue shard{allocate_like(ctx, in.k, dtype, in.k.extent(0), "d_k"),
                         allocate_like(ctx, in.v, dtype, in.v.extent(0), "d_v")};
    for (auto& ring : rings) ring.lane().unpack(shard, ring.home());
    return shard;
  });
}

template <Style kStyle>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, pairs = pairs_of_queries(problem, layout, rank);
  constexpr int kLanes = lanes_of(kStyle);
  Cost cost;
  for (int lane = 0; lane < kLanes; ++lane) {
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
  return cost;
}

constexpr const char* kRingPaper = "Liu, Zaharia, Abbeel 2023, arXiv:2310.01889";

template <Style kStyle>
constexpr Algorithm describe(const char* id, const char* title, const char* paper,
                             const char* pattern, Sharding sharding) {
  return {
      .id = id,
      .title = title,
      .paper = paper,
      .pattern = pattern,
      .sharding = sharding,
      .cost = cost<kStyle>,
      .forward = forward<kStyle>,
      .backward = backward<kStyle>,
  };
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
