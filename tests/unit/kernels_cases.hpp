// Blocks of attention that the forward and the backward test both run: shapes around tile and lane
// boundaries, grouped heads, runs with strides, every mask term, every storage type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels_fixture.hpp"

namespace sp::test {

struct BlockCase {
  std::string name;
  std::int64_t B = 1, H = 1, G = 1, D = 8, E = 8;
  Tokens q_tokens, k_tokens;
  Band band{};
  std::int64_t segment_length = 0;  // ids change every so many tokens, later in later sequences
  DType dtype = DType::kF32;
  Placement placement = Placement::kDense;
  double magnitude = 1;  // of q and k
};

inline Tokens run(std::int64_t first, std::int64_t count, std::int64_t stride = 1) {
  return Tokens({{first, stride, count}});
}

inline std::int32_t segment_of(const BlockCase& c, std::int64_t b, std::int64_t position) {
  return static_cast<std::int32_t>((position + b) / c.segment_length);
}

// The mask as the test defines it.
inline bool case_sees(const BlockCase& c, std::int64_t b, std::int64_t query, std::int64_t key) {
  if (c.band.causal && query < key) return false;
  if (c.band.window > 0 && std::abs(query - key) >= c.band.window) return false;
  return c.segment_length == 0 || segment_of(c, b, query) == segment_of(c, b, key);
}

inline std::vector<BlockCase> block_cases() {
  const Tokens zigzag_q({{0, 1, 40}, {280, 1, 40}});
  const Tokens zigzag_k({{40, 1, 40}, {240, 1, 40}});
  const Tokens whole = run(0, 150);
  const Band causal{true, 0};
  std::vector<BlockCase> cases{
      {.name = "one_pair", .D = 1, .E = 1, .q_tokens = run(0, 1), .k_tokens = run(0, 1)},
      {.name = "no_queries", .q_tokens = {}, .k_tokens = run(0, 5)},
      {.name = "no_keys", .B = 2, .H = 2, .q_tokens = run(0, 70), .k_tokens = {}},
      {.name = "no_sequences", .B = 0, .q_tokens = run(0, 5), .k_tokens = run(0, 5)},
      {.name = "no_value_columns", .E = 0, .q_tokens = run(0, 5), .k_tokens = run(0, 5)},
      {.name = "tile_minus_one", .D = 15, .E = 17, .q_tokens = run(0, 63), .k_tokens = run(0, 63)},
      {.name = "tile", .D = 16, .E = 64, .q_tokens = run(0, 64), .k_tokens = run(0, 64)},
      {.name = "tile_plus_one", .D = 65, .E = 33, .q_tokens = run(0, 65), .k_tokens = run(0, 65)},
      {.name = "grouped", .B = 2, .H = 6, .G = 2, .q_tokens = run(3, 90), .k_tokens = run(0, 77)},
      {.name = "one_key_head", .B = 2, .H = 9, .q_tokens = whole, .k_tokens = run(0, 77)},
      {.name = "causal", .B = 2, .H = 2, .q_tokens = whole, .k_tokens = whole, .band = causal},
      {.name = "future", .q_tokens = run(0, 70), .k_tokens = run(70, 70), .band = causal},
      {.name = "zigzag", .q_tokens = zigzag_q, .k_tokens = zigzag_k, .band = causal},
      {.name = "striped", .q_tokens = run(1, 99, 3), .k_tokens = run(2, 99, 3), .band = causal},
      {.name = "window", .q_tokens = whole, .k_tokens = run(20, 200), .band = {false, 9}},
      {.name = "causal_window", .q_tokens = whole, .k_tokens = whole, .band = {true, 70}},
      {.name = "segments", .B = 2, .q_tokens = whole, .k_tokens = whole, .segment_length = 37},
      {.name = "causal_segments",
       .B = 2,
       .H = 2,
       .q_tokens = zigzag_q,
       .k_tokens = run(0, 320),
       .band = causal,
       .segment_length = 64},
      {.name = "huge_scores", .D = 16, .q_tokens = whole, .k_tokens = whole, .magnitude = 50},
      {.name = "windows_of_tensors",
       .B = 2,
       .H = 4,
       .G = 2,
       .D = 13,
       .E = 7,
       .q_tokens = whole,
       .k_tokens = run(0, 66),
       .band = causal,
       .placement = Placement::kWindow},
  };
  for (const DType dtype : {DType::kF64, DType::kBF16, DType::kF16}) {
    BlockCase c{.name = "grouped_" + std::string(name_of(dtype)),
                .B = 2,
                .H = 4,
                .G = 2,
                .D = 33,
                .E = 20,
                .q_tokens = zigzag_q,
                .k_tokens = run(0, 320),
                .band = {true, 100}};
    c.dtype = dtype;
    cases.push_back(c);
  }
  return cases;
}

// The operands of a case, as values and as tensors.
struct BlockOperands {
  PlainBlock plain;
  Tensor q, k, v;
  MaskTerms mask;
  AttentionBlock block(const BlockCase& c) const {
    return {q, k, v, c.q_tokens, c.k_tokens, mask, plain.scale};
  }
};

class BlockTest : public KernelsTest, public ::testing::WithParamInterface<BlockCase> {
 protected:
  BlockOperands draw(const BlockCase& c) {
    const std::int64_t n = c.q_tokens.count(), m = c.k_tokens.count();
    BlockOperands operands;
    operands.plain = {random({n, c.B, c.H, c.D}, c.dtype, c.magnitude),
                      random({m, c.B, c.G, c.D}, c.dtype, c.magnitude),
                      random({m, c.B, c.G, c.E}, c.dtype),
                      positions_of(c.q_tokens),
                      positions_of(c.k_tokens),
                      [c](auto b, auto query, auto key) { return case_sees(c, b, query, key); },
                      0.37};
    operands.q = put(operands.plain.q, c.dtype, c.placement);
    operands.k = put(operands.plain.k, c.dtype, c.placement);
    operands.v = put(operands.plain.v, c.dtype, c.placement);
    operands.mask.band = c.band;
    if (c.segment_length > 0) {
      constexpr std::int64_t kPositions = 400;  // more than any case reaches
      std::vector<std::int32_t> ids;
      for (std::int64_t b = 0; b < c.B; ++b) {
        for (std::int64_t i = 0; i < kPositions; ++i) ids.push_back(segment_of(c, b, i));
      }
      operands.mask.segments = put_ids(c.B, kPositions, ids);
    }
    return operands;
  }

  // Relative error of a probability: rounding of D products, of the scale, of the shift by a
  // log-sum-exp of that size, and of one exponential.
  static double probability_error(const BlockCase& c, const PlainForward& plain) {
    const double u = unit_roundoff(accumulator_of(c.dtype));
    return (static_cast<double>(c.D) + 8) * u * (1 + plain.largest_score);
  }
};

}  // namespace sp::test
