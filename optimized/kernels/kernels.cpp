// Shape checks and charging, once for every back-end.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/kernels.hpp"

namespace sp {
namespace {

using Extents = Tensor::Extents;

void check_shape(const Tensor& tensor, const Extents& shape, const char* what) {
  SP_CHECK(tensor.defined() && tensor.shape() == shape, what);
}

void check_accumulator(const Tensor& tensor, const char* what) {
  SP_CHECK(tensor.dtype() == accumulator_of(tensor.dtype()), what);
}

void check_block(const AttentionBlock& block) {
  const Extents& q = block.q.shape();
  const Extents& k = block.k.shape();
  SP_CHECK(block.q.defined() && block.k.defined() && block.v.defined(),
           "an attention block needs q, k, v");
  SP_CHECK(q[1] == k[1] && q[3] == k[3] && k[2] > 0 && q[2] % k[2] == 0, "q and k disagree");
  check_shape(block.v, {k[0], k[1], k[2], block.v.extent(3)}, "v disagrees with k");
  SP_CHECK(block.q_tokens.count() == q[0] && block.k_tokens.count() == k[0],
           "positions do not match their tensors");
}

void check_rows(const Tensor& tensor, const Tensor& like, const char* what) {
  check_shape(tensor, {like.extent(0), like.extent(1), like.extent(2), 1}, what);
  check_accumulator(tensor, what);
}

}  // namespace

std::int64_t attention_flops(std::int64_t pairs, std::int64_t B, std::int64_t H, std::int64_t D,
                             std::int64_t E) {
  return pairs * B * H * (2 * D + 2 * E);
}

std::int64_t attention_backward_flops(std::int64_t pairs, std::int64_t B, std::int64_t H,
                                      std::int64_t D, std::int64_t E) {
  return pairs * B * H * (6 * D + 4 * E);
}

void Kernels::fill(const Tensor& target, double value) {
  charge("fill", 0, {}, {target});
  do_fill(target, value);
}

void Kernels::copy(const Tensor& target, const Tensor& source) {
  check_shape(source, target.shape(), "copy between different shapes");
  charge("copy", 0, {source}, {target});
  do_copy(target, source);
}

void Kernels::add(const Tensor& target, const Tensor& source) {
  check_shape(source, target.shape(), "add between different shapes");
  check_accumulator(target, "add needs an accumulator");
  charge("add", 0, {source, target}, {target});
  do_add(target, source);
}

void Kernels::attention(const AttentionBlock& block, const Partial& result) {
  check_block(block);
  const Extents& q = block.q.shape();
  const std::int64_t E = block.v.extent(3);
  check_shape(result.out, {q[0], q[1], q[2], E}, "out disagrees with q and v");
  check_rows(result.lse, block.q, "log-sum-exp disagrees with q");
  const std::int64_t pairs = visible_pairs(block.mask.band, block.q_tokens, block.k_tokens);
  charge("attention", attention_flops(pairs, q[1], q[2], q[3], E), {block.q, block.k, block.v},
         {result.out, result.lse});
  do_attention(block, result);
}

void Kernels::merge(const Partial& into, const Partial& from) {
  check_shape(from.out, into.out.shape(), "merge of different shapes");
  check_rows(into.lse, into.out, "log-sum-exp disagrees with out");
  check_rows(from.lse, into.out, "log-sum-exp disagrees with out");
  check_accumulator(into.out, "merge needs an accumulator");
  charge("merge", 0, {from.out, from.lse, into.out, into.lse}, {into.out, into.lse});
  do_merge(into, from);
}

void Kernels::attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) {
  check_shape(d_out, out.shape(), "d_out disagrees with out");
  check_rows(delta, out, "delta disagrees with out");
  charge("attention_delta", 0, {d_out, out}, {delta});
  do_attention_delta(delta, d_out, out);
}

void Kernels::attention_backward(const AttentionBlock& block, const Tensor& d_out,
                                 const Tensor& lse, const Tensor& delta,
                                 const AttentionGradients& gradients) {
  check_block(block);
  const Extents& q = block.q.shape();
  const std::int64_t E = block.v.extent(3);
  check_shape(d_out, {q[0], q[1], q[2], E}, "d_out disagrees with q and v");
  check_rows(lse, block.q, "log-sum-exp disagrees with q");
  check_rows(delta, block.q, "delta disagrees with q");
  check_shape(gradients.d_q, q, "d_q disagrees with q");
  check_shape(gradients.d_k, block.k.shape(), "d_k disagrees with k");
  check_shape(gradients.d_v, block.v.shape(), "d_v disagrees with v");
  for (const Tensor& gradient : {gradients.d_q, gradients.d_k, gradients.d_v}) {
    check_accumulator(gradient, "gradients need an accumulator");
  }
  const std::int64_t pairs = visible_pairs(block.mask.band, block.q_tokens, block.k_tokens);
  charge(
      "attention_backward", attention_backward_flops(pairs, q[1], q[2], q[3], E),
      {block.q, block.k, block.v, d_out, lse, delta, gradients.d_q, gradients.d_k, gradients.d_v},
      {gradients.d_q, gradients.d_k, gradients.d_v});
  do_attention_backward(block, d_out, lse, delta, gradients);
}

void Kernels::scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) {
  check_shape(scores, {a.extent(0), a.extent(1), a.extent(2), b.extent(0)},
              "scores disagree with a, b");
  check_shape(b, {b.extent(0), a.extent(1), b.extent(2), a.extent(3)}, "a and b disagree");
  check_accumulator(scores, "scores need an accumulator");
  charge("scores", 2 * scores.elements() * a.extent(3), {a, b}, {scores});
  do_scores(scores, a, b, scale);
}

void Kernels::scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                             const Tokens& k_tokens, const MaskTerms* mask) {
  check_rows(lse, scores, "log-sum-exp disagrees with scores");
  SP_CHECK(mask == nullptr ||
               (q_tokens.count() == scores.extent(0) && k_tokens.count() == scores.extent(3)),
           "positions do not match the score rows");
  charge("scores_softmax", 0, {scores}, {scores, lse});
  do_scores_softmax(scores, lse, q_tokens, k_tokens, mask);
}

void Kernels::scores_softmax_backward(const Tensor& d_probabilities, const Tensor& probabilities,
                                      double scale) {
  check_shape(d_probabilities, probabilities.shape(),
              "d_probabilities disagrees with probabilities");
  charge("scores_softmax_backward", 0, {d_probabilities, probabilities}, {d_probabilities});
  do_scores_softmax_backward(d_probabilities, probabilities, scale);
}

void Kernels::scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) {
  check_shape(out, {s.extent(0), s.extent(1), s.extent(2), x.extent(3)},
              "out disagrees with scores");
  SP_CHECK(x.extent(0) == s.extent(3) && x.extent(1) == s.extent(1), "x disagrees with scores");
  check_accumulator(out, "scores_apply needs an accumulator");
  charge("scores_apply", 2 * s.elements() * x.extent(3), {s, x, out}, {out});
  do_scores_apply(out, s, x);
}

void Kernels::scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) {
  check_shape(x, {s.extent(0), s.extent(1), s.extent(2), x.extent(3)}, "x disagrees with scores");
  check_shape(out, {s.extent(3), s.extent(1), out.extent(2), x.extent(3)},
              "out disagrees with scores");
  check_accumulator(out, "scores_apply_transposed needs an accumulator");
  charge("scores_apply_transposed", 2 * s.elements() * x.extent(3), {s, x, out}, {out});
  do_scores_apply_transposed(out, s, x);
}

void Kernels::project(const Tensor& projected, const Tensor& projection, const Tensor& x) {
  check_shape(projection, {x.extent(0), 1, 1, projected.extent(0)}, "projection disagrees with x");
  check_shape(projected, {projected.extent(0), x.extent(1), x.extent(2), x.extent(3)},
              "projected disagrees with x");
  check_accumulator(projected, "project needs an accumulator");
  charge("project", 2 * x.elements() * projected.extent(0), {projection, x, projected},
         {projected});
  do_project(projected, projection, x);
}

void Kernels::project_backward(const Tensor& d_x, const Tensor& d_projection,
                               const Tensor& d_projected, const Tensor& projection,
                               const Tensor& x) {
  check_shape(projection, {x.extent(0), 1, 1, d_projected.extent(0)},
              "projection disagrees with x");
  check_shape(d_x, x.shape(), "d_x disagrees with x");
  check_shape(d_projection, projection.shape(), "d_projection disagrees with projection");
  check_accumulator(d_x, "project_backward needs an accumulator");
  check_accumulator(d_projection, "project_backward needs an accumulator");
  charge("project_backward", 4 * x.elements() * d_projected.extent(0),
         {d_projected, projection, x, d_x, d_projection}, {d_x, d_projection});
  do_project_backward(d_x, d_projection, d_projected, projection, x);
}

}  // namespace sp
