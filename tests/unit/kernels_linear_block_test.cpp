// The left product of linear attention against two plain loops.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels_cases.hpp"

namespace sp::test {
namespace {

struct LeftCase {
  BlockCase block;
  Module module;
  double decay;  // log decay of head 0; of head h times (h + 1)
};

// Documents are runs of equal ids, so the ids are compared for every token between.
bool left_sees(const LeftCase& c, std::int64_t b, std::int64_t query, std::int64_t key) {
  const BlockCase& block = c.block;
  if (block.band.causal && query < key) return false;
  if (block.segment_length == 0) return true;
  for (std::int64_t i = std::min(query, key); i < std::max(query, key); ++i) {
    if (segment_of(block, b, i) % 2 != segment_of(block, b, i + 1) % 2) return false;
  }
  return true;
}

std::vector<LeftCase> left_cases() {
  const Tokens whole = run(0, 150), zigzag({{0, 1, 40}, {280, 1, 40}});
  const Band causal{true, 0};
  std::vector<BlockCase> blocks{
      {.name = "one_pair", .D = 1, .E = 1, .q_tokens = run(0, 1), .k_tokens = run(0, 1)},
      {.name = "no_queries", .q_tokens = {}, .k_tokens = run(0, 5)},
      {.name = "no_keys", .q_tokens = run(0, 5), .k_tokens = {}},
      {.name = "causal",
       .B = 2,
       .H = 2,
       .G = 2,
       .q_tokens = whole,
       .k_tokens = whole,
       .band = causal},
      {.name = "both_ways",
       .B = 2,
       .H = 4,
       .G = 2,
       .D = 5,
       .E = 3,
       .q_tokens = whole,
       .k_tokens = whole},
      {.name = "earlier", .q_tokens = run(100, 70), .k_tokens = run(10, 65), .band = causal},
      {.name = "later", .q_tokens = run(0, 70), .k_tokens = run(70, 70), .band = causal},
      {.name = "zigzag", .H = 2, .q_tokens = zigzag, .k_tokens = run(0, 320), .band = causal},
      {.name = "striped", .q_tokens = run(1, 99, 3), .k_tokens = run(2, 99, 3), .band = causal},
      {.name = "two_strides", .q_tokens = run(1, 70, 3), .k_tokens = run(0, 99, 2)},
      {.name = "documents",
       .B = 2,
       .H = 2,
       .q_tokens = whole,
       .k_tokens = run(20, 100),
       .band = causal,
       .segment_length = 30},
      {.name = "documents_both_ways",
       .B = 2,
       .q_tokens = whole,
       .k_tokens = whole,
       .segment_length = 30,
       .placement = Placement::kWindow},
  };
  for (const DType dtype : {DType::kF64, DType::kBF16, DType::kF16}) {
    BlockCase c{.name = std::string(name_of(dtype)),
                .B = 2,
                .H = 4,
                .G = 2,
                .D = 33,
                .E = 20,
                .q_tokens = zigzag,
                .k_tokens = run(0, 320),
                .band = causal};
    c.dtype = dtype;
    blocks.push_back(c);
  }
  std::vector<LeftCase> cases;
  for (const BlockCase& block : blocks) {
    for (const double decay : {0.0, -0.1, -1e4}) {
      LeftCase c{block, decay == 0 ? Module::kBasic : Module::kRetention, decay};
      c.block.name += decay == 0 ? "" : decay < -1 ? "_strong_decay" : "_decay";
      cases.push_back(c);
    }
  }
  return cases;
}

struct Sums {
  Values value, terms;
  explicit Sums(Tensor::Extents shape) : value(shape), terms(shape) {}
  void add(std::int64_t i, std::int64_t b, std::int64_t h, std::int64_t d, double x, double bound) {
    value.at(i, b, h, d) += x;
    terms.at(i, b, h, d) += bound;
  }
};

class LeftProductTest : public KernelsTest, public ::testing::WithParamInterface<LeftCase> {};

TEST_P(LeftProductTest, MatchesPlainLoops) {
  const LeftCase& lc = GetParam();
  const BlockCase& c = lc.block;
  constexpr double kScale = 0.37;
  const std::int64_t n = c.q_tokens.count(), m = c.k_tokens.count();
  const DType acc = accumulator_of(c.dtype);
  const Values q = random({n, c.B, c.H, c.D}, c.dtype), k = random({m, c.B, c.G, c.D}, c.dtype),
               v = random({m, c.B, c.G, c.E}, c.dtype), d_out = random({n, c.B, c.H, c.E}, c.dtype);
  Values log_decay({1, 1, c.H, 1});
  for (std::int64_t h = 0; h < c.H; ++h) {
    log_decay.at(0, 0, h, 0) =
        static_cast<double>(static_cast<float>(lc.decay * static_cast<double>(h + 1)));
  }

  Sums out(d_out.shape), d_q(q.shape), d_k(k.shape), d_v(v.shape), d_decay(log_decay.shape);
  for (std::int64_t flat = 0; flat < n * c.B * c.H * m; ++flat) {
    const std::int64_t i = flat / (c.B * c.H * m), b = flat / (c.H * m) % c.B;
    const std::int64_t h = flat / m % c.H, j = flat % m, g = h / (c.H / c.G);
    const std::int64_t query = c.q_tokens.position(i), key = c.k_tokens.position(j);
    if (!left_sees(lc, b, query, key)) continue;
    const double distance = static_cast<double>(std::abs(query - key));
    const double weight = kScale * std::exp(log_decay.at(0, 0, h, 0) * distance);
    double s = 0, s_terms = 0, dp = 0, dp_terms = 0;
    for (std::int64_t d = 0; d < c.D; ++d) {
      s += q.at(i, b, h, d) * k.at(j, b, g, d);
      s_terms += std::fabs(q.at(i, b, h, d) * k.at(j, b, g, d));
    }
    for (std::int64_t e = 0; e < c.E; ++e) {
      const double gradient = d_out.at(i, b, h, e), value = v.at(j, b, g, e);
      dp += gradient * value;
      dp_terms += std::fabs(gradient * value);
      out.add(i, b, h, e, weight * s * value, weight * s_terms * std::fabs(value));
      d_v.add(j, b, g, e, weight * s * gradient, weight * s_terms * std::fabs(gradient));
    }
    for (std::int64_t d = 0; d < c.D; ++d) {
      const double x = q.at(i, b, h, d), y = k.at(j, b, g, d);
      d_q.add(i, b, h, d, weight * dp * y, weight * dp_terms * std::fabs(y));
      d_k.add(j, b, g, d, weight * dp * x, weight * dp_terms * std::fabs(x));
    }
    d_decay.add(0, 0, h, 0, distance * weight * s * dp, distance * weight * s_terms * dp_terms);
  }

  MaskTerms mask{c.band, {}};
  if (c.segment_length > 0) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < c.B * 400; ++i) {
      ids.push_back(segment_of(c, i / 400, i % 400) % 2);
    }
    mask.segments = put_ids(c.B, 400, ids);
  }
  LinearTerms terms{.module = lc.module};
  if (lc.module != Module::kBasic) terms.log_decay = put(log_decay, acc, c.placement);
  const AttentionBlock block{put(q, c.dtype, c.placement),
                             put(k, c.dtype, c.placement),
                             put(v, c.dtype, c.placement),
                             c.q_tokens,
                             c.k_tokens,
                             mask,
                             kScale};
  constexpr double kBefore = 0.5;  // results are added to what is there
  const auto before = [&](const Values& like) {
    return put(Values(like.shape, kBefore), acc, c.placement);
  };
  const Tensor sums = before(d_out), d_log_decay = before(log_decay);
  const AttentionGradients gradients{before(q), before(k), before(v)};
  kernels_.linear_block(block, terms, sums);
  kernels_.linear_block_backward(block, terms, put(d_out, c.dtype, c.placement), gradients,
                                 lc.module == Module::kBasic ? Tensor() : d_log_decay);

  // One rounding per sum over channels, values and tokens, and a few for decay and scale.
  const double u = unit_roundoff(acc);
  const double error = static_cast<double>(c.D + c.E + n * (c.H / c.G) + m + 16) * u;
  const auto compare = [&](const Tensor& actual, Sums& want, const char* what) {
    for (double& value : want.value.data) value += kBefore;
    expect_within(
        take(actual), want.value,
        [&](std::size_t i) { return error * (want.terms.data[i] + kBefore); }, what);
  };
  compare(sums, out, "sums");
  compare(gradients.d_q, d_q, "d_q");
  compare(gradients.d_k, d_k, "d_k");
  compare(gradients.d_v, d_v, "d_v");
  if (lc.module != Module::kBasic) compare(d_log_decay, d_decay, "d_log_decay");
}

INSTANTIATE_TEST_SUITE_P(Kernels, LeftProductTest, ::testing::ValuesIn(left_cases()),
                         [](const auto& tested) { return tested.param.block.name; });

}  // namespace
}  // namespace sp::test
