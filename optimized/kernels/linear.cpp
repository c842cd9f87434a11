// Sizes and flops of the kernels of linear attention.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/linear.hpp"

#include "reference/problem/error.hpp"

namespace sp {

std::int64_t features_of(Module module, std::int64_t D) {
  const std::int64_t squares = D * (D + 1) / 2;
  if (module == Module::kBased) return 1 + D + squares;
  return module == Module::kRebased ? squares : D;
}

std::int64_t chunk_pairs(std::int64_t tokens, std::int64_t chunk) {
  SP_CHECK(tokens >= 0 && chunk > 0, "sub-chunks have at least one token");
  const auto triangle = [](std::int64_t rows) { return rows * (rows + 1) / 2; };
  return tokens / chunk * triangle(chunk) + triangle(tokens % chunk);
}

LinearShape linear_shape(const Shape& shape, Module module) {
  return {.B = shape.B,
          .H = shape.H,
          .SH = decay_of(module) == Decay::kNone ? shape.G : shape.H,
          .D = shape.D,
          .F = features_of(module, shape.D),
          .W = shape.E + (is_normalised(module) ? 1 : 0)};
}

LinearFlops linear_flops(const LinearShape& shape, std::int64_t n, std::int64_t chunk) {
  const std::int64_t pairs = chunk_pairs(n, chunk) * shape.B * shape.H;
  const std::int64_t per_state_head = 2 * n * shape.B * shape.SH * shape.F * shape.W;
  const std::int64_t per_query_head = 2 * n * shape.B * shape.H * shape.F * shape.W;
  const std::int64_t forward =
      pairs * (2 * shape.D + 2 * shape.W) + per_query_head + per_state_head;
  return {.state = per_state_head,
          .inter = per_query_head,
          .forward = forward,
          .d_q = forward,
          .d_kv = pairs * (4 * shape.D + 4 * shape.W) + per_query_head + 2 * per_state_head,
          .d_kv_inter = 2 * per_state_head};
}

}  // namespace sp
