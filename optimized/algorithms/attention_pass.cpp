// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/attention_pass.hpp"

#include <limits>

namespace sp {

Queries Queries::rows(Rows some) const {
  Queries part = rows_of(*this, some);
  part.tokens = tokens.slice(some.begin, some.end);
  return part;
}

Queries queries_of(Context& ctx, const Shards& in) {
  return {in.layout.tokens(ctx.comm.rank()), in.q};
}

Queries queries_of(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  return {in.layout.tokens(ctx.comm.rank()), in.q, d_out, saved.lse,
          delta_of(ctx, d_out, saved.out)};
}

AttentionPass::AttentionPass(Context& ctx, const Shards& in, Queries own)
    : ctx_(ctx), in_(in), own_(std::move(own)) {
  const DType acc = accumulator_of(in.problem.dtype);
  if (backward()) {
    sums_.d_q = zeros(ctx, acc, own_.q.shape(), "d_q");
  } else {
    const Partial sums = allocate_partial(ctx, in, own_.tokens.count(), acc);
    sums_ = {.out = sums.out, .lse = sums.lse};
  }
}

Keys AttentionPass::keys() const {
  Keys keys{own_.tokens, in_.k, in_.v};
  if (!backward()) return keys;
  keys.d_k = zeros(ctx_, sums_.d_q.dtype(), in_.k.shape(), "d_k");
  keys.d_v = zeros(ctx_, sums_.d_q.dtype(), in_.v.shape(), "d_v");
  return keys;
}

Results AttentionPass::allocate_results(std::int64_t rows) const {
  if (backward()) return allocate_block(ctx_, Results{.d_q = sums_.d_q}, rows);
  const Partial partial = allocate_partial(ctx_, in_, rows, in_.problem.dtype);
  return {.out = partial.out, .lse = partial.lse};
}

bool AttentionPass::sees(const Queries& queries, const Keys& keys) const {
  return any_visible(in_.mask.band, queries.tokens, keys.tokens);
}

void AttentionPass::attend(const Queries& queries, const Keys& keys, const Results& results) const {
  const AttentionBlock block{queries.q,   keys.k,   keys.v,           queries.tokens,
                             keys.tokens, in_.mask, in_.problem.scale};
  if (backward()) {
    ctx_.kernels.attention_backward(block, queries.d_out, queries.lse, queries.delta,
                                    {results.d_q, keys.d_k, keys.d_v});
  } else {
    ctx_.kernels.attention(block, {results.out, results.lse});
  }
}

void AttentionPass::serve(const Queries& queries, const Keys& keys, const Results& results) const {
  if (backward()) ctx_.kernels.fill(results.d_q, 0);
  attend(queries, keys, results);
}

void AttentionPass::begin(const Keys& keys) {
  attend(own_, keys, sums_);
  begun_ = true;
}

void AttentionPass::attend(const Keys& keys) {
  if (!sees(own_, keys)) return;
  if (backward()) return attend(own_, keys, sums_);
  if (!part_.out.defined())
    part_ = allocate_partial(ctx_, in_, own_.tokens.count(), sums_.out.dtype());
  attend(own_, keys, {.out = part_.out, .lse = part_.lse});
  merge({0, own_.tokens.count()}, {.out = part_.out, .lse = part_.lse});
}

void AttentionPass::merge(Rows rows, const Results& results) {
  const Results into = rows_of(sums_, rows);
  if (backward()) {
    ctx_.kernels.add(into.d_q, results.d_q);
    return;
  }
  open();
  ctx_.kernels.merge({into.out, into.lse}, {results.out, results.lse});
}

// With the identity of merge; backward's zeros are there already.
void AttentionPass::open() {
  if (begun_ || backward()) return;
  ctx_.kernels.fill(sums_.out, 0);
  ctx_.kernels.fill(sums_.lse, -std::numeric_limits<double>::infinity());
  begun_ = true;
}

Results AttentionPass::results() {
  if (backward()) return sums_;
  open();
  return {.out = to_storage(ctx_, sums_.out, in_.problem.dtype, "out"), .lse = sums_.lse};
}

Forward AttentionPass::finish() {
  open();
  return sp::finish(ctx_, in_, Partial{sums_.out, sums_.lse});
}

Gradients AttentionPass::finish(const Tensor& d_k, const Tensor& d_v) const {
  return sp::finish(ctx_, in_, AttentionGradients{sums_.d_q, d_k, d_v});
}

Cargo cargo_of(const Problem& problem, bool backward) {
  const TokenBytes token(problem);
  if (!backward) return {{token.q, 1}, {token.out + token.lse, 2}, {token.kv(), 2}, {}};
  return {{token.q + token.out + 2 * token.lse, 4},
          {token.acc_q, 1},
          {token.kv(), 2},
          {token.acc_kv(), 2}};
}

}  // namespace sp
