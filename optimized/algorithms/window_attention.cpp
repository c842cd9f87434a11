// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/window_attention.hpp"

#include <algorithm>
#include <utility>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/linear_chunk.hpp"

namespace sp {
namespace {

// Local rows of `source` that the window of `target` reaches.
Rows halo_rows(const Problem& problem, const Layout& layout, int source, int target) {
  const Run keys = chunk_of(layout, source), queries = chunk_of(layout, target);
  if (source >= target || keys.count == 0 || queries.count == 0) return {};
  const std::int64_t first = queries.first - (problem.mask.window - 1);
  return {std::clamp<std::int64_t>(first - keys.first, 0, keys.count), keys.count};
}

// f(peer, its rows in the halo of `rank`) and the reverse, for every peer with any.
template <class F>
void for_each_owner(const Problem& problem, const Layout& layout, int rank, F&& f) {
  std::int64_t begin = 0;
  for (int owner = 0; owner < rank; ++owner) {
    const Rows rows = halo_rows(problem, layout, owner, rank);
    if (rows.empty()) continue;
    f(owner, Rows{begin, begin + rows.count()});
    begin += rows.count();
  }
}
template <class F>
void for_each_reader(const Problem& problem, const Layout& layout, int rank, F&& f) {
  for (int reader = rank + 1; reader < layout.ranks(); ++reader) {
    const Rows rows = halo_rows(problem, layout, rank, reader);
    if (!rows.empty()) f(reader, rows);
  }
}

// What a reader returns for the rows of this rank that it read.
struct Share {
  Rows own;
  Tensor d_k, d_v;
};

Tokens halo_of(const Problem& problem, const Layout& layout, int rank) {
  Tokens tokens;
  if (problem.mask.window == 0) return tokens;
  for (int owner = 0; owner < rank; ++owner) {
    const Rows rows = halo_rows(problem, layout, owner, rank);
    if (!rows.empty()) tokens.append(layout.tokens(owner).slice(rows.begin, rows.end));
  }
  return tokens;
}

}  // namespace

WindowAttention::WindowAttention(Context& ctx, const Shards& in)
    : ctx_(ctx),
      in_(in),
      mine_(in.layout.tokens(ctx.comm.rank())),
      halo_(halo_of(in.problem, in.layout, ctx.comm.rank())) {}

void WindowAttention::attend_own() {
  if (!present()) return;
  const DType dtype = in_.problem.dtype;
  k_ = allocate_like(ctx_, in_.k, dtype, halo_.count(), "k");
  v_ = allocate_like(ctx_, in_.v, dtype, halo_.count(), "v");
  std::vector<Message> sends, receives;
  for_each_reader(in_.problem, in_.layout, ctx_.comm.rank(), [&](int reader, Rows rows) {
    sends.push_back({reader, in_.k.rows(rows.begin, rows.end), {"k", 0}});
    sends.push_back({reader, in_.v.rows(rows.begin, rows.end), {"v", 0}});
  });
  for_each_owner(in_.problem, in_.layout, ctx_.comm.rank(), [&](int owner, Rows rows) {
    receives.push_back({owner, k_.rows(rows.begin, rows.end), {"k", 0}});
    receives.push_back({owner, v_.rows(rows.begin, rows.end), {"v", 0}});
  });
  pending_ = ctx_.comm.exchange(std::move(sends), std::move(receives));
  result_ = allocate_partial(ctx_, in_, mine_.count(), accumulator_of(dtype));
  ctx_.kernels.attention(
      {in_.q, in_.k, in_.v, mine_, mine_, in_.mask, default_scale(in_.problem.shape)}, result_);
}

Forward WindowAttention::finish(const Tensor& sums, const Tensor& before) {
  pending_.wait();
  const DType accumulator = accumulator_of(in_.problem.dtype);
  const Rows rows = visible_rows(in_.mask.band, mine_, halo_);
  if (!rows.empty()) {
    const Partial part = allocate_partial(ctx_, in_, rows.count(), accumulator);
    ctx_.kernels.attention(
        {in_.q.rows(rows.begin, rows.end), k_, v_, mine_.slice(rows.begin, rows.end), halo_,
         in_.mask, default_scale(in_.problem.shape)},
        part);
    ctx_.kernels.merge(result_.rows(rows.begin, rows.end), part);
  }
  const Tensor out = ctx_.memory.allocate(accumulator, result_.out.shape(), "out");
  ctx_.kernels.linear_output(out, sums, in_.problem.epsilon);
  ctx_.kernels.add(out, result_.out);
  return {to_storage(ctx_, out, in_.problem.dtype, "out"),
          {},
          {before, {}, sums, result_.out, result_.lse, k_, v_}};
}

void WindowAttention::backward(const Forward& saved, const Tensor& d_out,
                               const LinearGradients& gradients) const {
  if (!present()) return;
  const Tensor &out = saved.saved[3], &lse = saved.saved[4], &k = saved.saved[5],
               &v = saved.saved[6];
  const double scale = default_scale(in_.problem.shape);
  const Tensor delta = delta_of(ctx_, d_out, out);
  const Tensor d_k = zeros(ctx_, out.dtype(), k.shape(), "d_k");
  const Tensor d_v = zeros(ctx_, out.dtype(), v.shape(), "d_v");
  const Rows rows = visible_rows(in_.mask.band, mine_, halo_);
  const auto part = [&](const Tensor& tensor) { return tensor.rows(rows.begin, rows.end); };
  if (!rows.empty()) {
    ctx_.kernels.attention_backward(
        {part(in_.q), k, v, mine_.slice(rows.begin, rows.end), halo_, in_.mask, scale}, part(d_out),
        part(lse), part(delta), {part(gradients.d_q), d_k, d_v});
  }
  std::vector<Message> sends, receives;
  std::vector<Share> shares;
  for_each_owner(in_.problem, in_.layout, ctx_.comm.rank(), [&](int owner, Rows halo) {
    sends.push_back({owner, d_k.rows(halo.begin, halo.end), {"d_k", 0}});
    sends.push_back({owner, d_v.rows(halo.begin, halo.end), {"d_v", 0}});
  });
  for_each_reader(in_.problem, in_.layout, ctx_.comm.rank(), [&](int reader, Rows own) {
    shares.push_back({own, allocate_like(ctx_, in_.k, out.dtype(), own.count(), "d_k"),
                      allocate_like(ctx_, in_.v, out.dtype(), own.count(), "d_v")});
    receives.push_back({reader, shares.back().d_k, {"d_k", 0}});
    receives.push_back({reader, shares.back().d_v, {"d_v", 0}});
  });
  Pending pending = ctx_.comm.exchange(std::move(sends), std::move(receives));
  ctx_.kernels.attention_backward({in_.q, in_.k, in_.v, mine_, mine_, in_.mask, scale}, d_out, lse,
                                  delta, {gradients.d_q, gradients.d_k, gradients.d_v});
  pending.wait();
  for (const auto& [own, d_k_share, d_v_share] : shares) {
    ctx_.kernels.add(gradients.d_k.rows(own.begin, own.end), d_k_share);
    ctx_.kernels.add(gradients.d_v.rows(own.begin, own.end), d_v_share);
  }
}

Cost window_cost(const Problem& problem, const Layout& layout, int rank) {
  Cost cost;
  if (problem.mask.window == 0) return cost;
  const TokenBytes token(problem);
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  for_each_owner(problem, layout, rank, [&](int, Rows) { cost.backward.messages_sent += 2; });
  for_each_reader(problem, layout, rank, [&](int, Rows rows) {
    cost.forward.bytes_sent += rows.count() * token.kv();
    cost.forward.messages_sent += 2;
  });
  cost.backward.bytes_sent = halo_of(problem, layout, rank).count() * token.acc_kv();
  cost.forward.flops = forward_flops(problem, pairs);
  cost.backward.flops = backward_flops(problem, pairs);
  return cost;
}

}  // namespace sp
