// Shape checks and charging of the dense family, once for every back-end. Flops are those of
// products, two per multiply-add; everything else counts none, as elsewhere.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/dense.hpp"

namespace sp {
namespace {

using Extents = Tensor::Extents;

void check(const Tensor& tensor, const Extents& shape, const char* what) {
  SP_CHECK(tensor.defined() && tensor.shape() == shape && tensor.contiguous(), what);
}
void check_sum(const Tensor& tensor, const Extents& shape, const char* what) {
  check(tensor, shape, what);
  SP_CHECK(tensor.dtype() == accumulator_of(tensor.dtype()), what);
}
void check_ids(const Tensor& ids, const Tensor& rows, const char* what) {
  check(ids, {rows.extent(0), rows.extent(1), 1, 1}, what);
  SP_CHECK(ids.dtype() == DType::kI32, what);
}
void check_activation(const Tensor& tensor) {
  SP_CHECK(tensor.defined() && tensor.contiguous(), "activations are contiguous");
}

Extents with_last(const Tensor& tensor, std::int64_t size) {
  return {tensor.extent(0), tensor.extent(1), tensor.extent(2), size};
}
std::int64_t rows_of(const Tensor& tensor) {
  return tensor.extent(0) * tensor.extent(1) * tensor.extent(2);
}

std::int64_t product_flops(const Tensor& x, const Tensor& weight) {
  return 2 * rows_of(x) * weight.extent(0) * weight.extent(3);
}

void check_weight(const Tensor& weight, const Tensor& x, const Tensor& y) {
  check(weight, {y.extent(3), 1, 1, x.extent(3)}, "a weight is [to, 1, 1, from]");
  check(x, with_last(y, x.extent(3)), "a product keeps the tokens of its operand");
}

}  // namespace

void DenseKernels::product(const Tensor& y, const Tensor& x, const Tensor& weight,
                           const Tensor& bias) {
  check_weight(weight, x, y);
  check_activation(y);
  if (bias.defined()) check(bias, {1, 1, 1, y.extent(3)}, "a bias is [1, 1, 1, to]");
  charge_defined("product", product_flops(x, weight), {x, weight, bias}, {y});
  do_product(y, x, weight, bias);
}

void DenseKernels::product_d_x(const Tensor& d_x, const Tensor& d_y, const Tensor& weight) {
  check_weight(weight, d_x, d_y);
  check_sum(d_x, d_x.shape(), "a gradient is a sum");
  charge("product_d_x", product_flops(d_x, weight), {d_y, weight, d_x}, {d_x});
  do_product_d_x(d_x, d_y, weight);
}

void DenseKernels::product_d_weight(const Tensor& d_weight, const Tensor& d_bias, const Tensor& d_y,
                                    const Tensor& x) {
  check_weight(d_weight, x, d_y);
  check_sum(d_weight, d_weight.shape(), "a gradient is a sum");
  if (d_bias.defined()) check_sum(d_bias, {1, 1, 1, d_y.extent(3)}, "a bias is [1, 1, 1, to]");
  charge_defined("product_d_weight", product_flops(x, d_weight), {d_y, x, d_weight, d_bias},
                 {d_weight, d_bias});
  do_product_d_weight(d_weight, d_bias, d_y, x);
}

void DenseKernels::norm(const Tensor& y, const Tensor& x, const Tensor& gain, const Tensor& bias,
                        const NormRows& rows, double epsilon) {
  check_activation(x);
  check(y, x.shape(), "a norm keeps the shape");
  check(gain, {1, 1, 1, x.extent(3)}, "a gain is [1, 1, 1, C]");
  SP_CHECK(bias.defined() == rows.mean.defined(), "a bias and a mean come together");
  if (bias.defined()) {
    check(bias, {1, 1, 1, x.extent(3)}, "a bias is [1, 1, 1, C]");
    check_sum(rows.mean, with_last(x, 1), "the mean of every row");
  }
  check_sum(rows.inverse, with_last(x, 1), "the inverse of every row");
  charge_defined("norm", 0, {x, gain, bias}, {y, rows.mean, rows.inverse});
  do_norm(y, x, gain, bias, rows, epsilon);
}

void DenseKernels::norm_backward(const Tensor& d_x, const Tensor& d_gain, const Tensor& d_bias,
                                 const Tensor& d_y, const Tensor& x, const Tensor& gain,
                                 const NormRows& rows) {
  check_activation(x);
  check_sum(d_x, x.shape(), "a gradient is a sum");
  check(d_y, x.shape(), "a norm keeps the shape");
  check_sum(d_gain, {1, 1, 1, x.extent(3)}, "the gradient of a gain is a sum");
  check(gain, d_gain.shape(), "a gain is [1, 1, 1, C]");
  SP_CHECK(d_bias.defined() == rows.mean.defined(), "a bias and a mean come together");
  if (d_bias.defined()) check_sum(d_bias, d_gain.shape(), "the gradient of a bias is a sum");
  charge_defined("norm_backward", 0, {d_y, x, gain, rows.mean, rows.inverse, d_x, d_gain, d_bias},
                 {d_x, d_gain, d_bias});
  do_norm_backward(d_x, d_gain, d_bias, d_y, x, gain, rows);
}

void DenseKernels::rotate(const Tensor& y, const Tensor& x, const Tokens& tokens, double base,
                          int sign) {
  check_activation(x);
  check(y, x.shape(), "a rotation keeps the shape");
  SP_CHECK(x.extent(3) % 2 == 0, "pairs of channels turn");
  SP_CHECK(tokens.count() == x.extent(0), "positions do not match their tensor");
  SP_CHECK(sign == 1 || sign == -1, "forth or back");
  charge("rotate", 0, {x}, {y});
  do_rotate(y, x, tokens, base, sign);
}

void DenseKernels::activate(const Tensor& y, const Tensor& x, Activation f, double factor) {
  check_activation(x);
  check(y, x.shape(), "an activation keeps the shape");
  charge("activate", 0, {x}, {y});
  do_activate(y, x, f, factor);
}

void DenseKernels::activate_backward(const Tensor& d_x, const Tensor& d_y, const Tensor& x,
                                     Activation f, double factor) {
  check_activation(x);
  check(d_x, x.shape(), "an activation keeps the shape");
  check(d_y, x.shape(), "an activation keeps the shape");
  charge("activate_backward", 0, {d_y, x}, {d_x});
  do_activate_backward(d_x, d_y, x, f, factor);
}

void DenseKernels::gate(const Tensor& y, const Tensor& gates, const Tensor& x) {
  check_activation(x);
  check(y, x.shape(), "a gate keeps the shape");
  check(gates, x.shape(), "a gate for every element");
  charge("gate", 0, {gates, x}, {y});
  do_gate(y, gates, x);
}

void DenseKernels::gate_backward(const Tensor& d_gates, const Tensor& d_x, const Tensor& d_y,
                                 const Tensor& gates, const Tensor& x) {
  check_activation(x);
  for (const Tensor& tensor : {d_gates, d_x, d_y, gates})
    check(tensor, x.shape(), "a gate keeps the shape");
  charge("gate_backward", 0, {d_y, gates, x}, {d_gates, d_x});
  do_gate_backward(d_gates, d_x, d_y, gates, x);
}

void DenseKernels::embed(const Tensor& y, const Tensor& table, const Tensor& ids,
                         std::int64_t first) {
  check_sum(y, {y.extent(0), y.extent(1), 1, y.extent(3)}, "an embedding is added to a sum");
  check(table, {table.extent(0), 1, 1, y.extent(3)}, "a table is [rows, 1, 1, C]");
  check_ids(ids, y, "ids are [n, B, 1, 1] in i32");
  charge("embed", 0, {table, ids, y}, {y});
  do_embed(y, table, ids, first);
}

void DenseKernels::embed_backward(const Tensor& d_table, const Tensor& d_y, const Tensor& ids,
                                  std::int64_t first) {
  check(d_y, {d_y.extent(0), d_y.extent(1), 1, d_y.extent(3)}, "a row for every token");
  check_sum(d_table, {d_table.extent(0), 1, 1, d_y.extent(3)}, "a gradient is a sum");
  check_ids(ids, d_y, "ids are [n, B, 1, 1] in i32");
  charge("embed_backward", 0, {d_y, ids, d_table}, {d_table});
  do_embed_backward(d_table, d_y, ids, first);
}

void DenseKernels::vocabulary_rows(const Tensor& lse, const Tensor& picked, const Tensor& logits,
                                   const Tensor& targets, std::int64_t first) {
  check_activation(logits);
  check_ids(targets, logits, "targets are [n, B, 1, 1] in i32");
  check_sum(lse, targets.shape(), "a log-sum-exp for every row");
  check_sum(picked, targets.shape(), "a logit for every row");
  charge("vocabulary_rows", 0, {logits, targets}, {lse, picked});
  do_vocabulary_rows(lse, picked, logits, targets, first);
}

void DenseKernels::cross_entropy(const Tensor& loss, const Tensor& lse, const Tensor& picked,
                                 const Tensor& weights) {
  check_sum(loss, {1, 1, 1, 1}, "a loss is one sum");
  check_sum(lse, lse.shape(), "a log-sum-exp for every row");
  check_sum(picked, lse.shape(), "a logit for every row");
  check_sum(weights, lse.shape(), "a weight for every row");
  charge("cross_entropy", 0, {lse, picked, weights, loss}, {loss});
  do_cross_entropy(loss, lse, picked, weights);
}

void DenseKernels::cross_entropy_backward(const Tensor& d_logits, const Tensor& logits,
                                          const Tensor& lse, const Tensor& targets,
                                          const Tensor& weights, std::int64_t first) {
  check_activation(logits);
  check(d_logits, logits.shape(), "a gradient for every logit");
  check_ids(targets, logits, "targets are [n, B, 1, 1] in i32");
  check_sum(lse, targets.shape(), "a log-sum-exp for every row");
  check_sum(weights, targets.shape(), "a weight for every row");
  charge("cross_entropy_backward", 0, {logits, lse, targets, weights}, {d_logits});
  do_cross_entropy_backward(d_logits, logits, lse, targets, weights, first);
}

void DenseKernels::add_squares(const Tensor& sum, const Tensor& x) {
  check_activation(x);
  check_sum(sum, {1, 1, 1, 1}, "a sum of squares is one sum");
  charge("add_squares", 0, {x, sum}, {sum});
  do_add_squares(sum, x);
}

void DenseKernels::adamw(const Tensor& parameter, const Tensor& first, const Tensor& second,
                         const Tensor& gradient, const AdamStep& step) {
  for (const Tensor& tensor : {parameter, first, second, gradient})
    check_sum(tensor, parameter.shape(), "an update is in the accumulator type");
  charge("adamw", 0, {parameter, first, second, gradient}, {parameter, first, second});
  do_adamw(parameter, first, second, gradient, step);
}

}  // namespace sp
