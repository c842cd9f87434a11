// SPDX-License-Identifier: Apache-2.0
#include "harness/generate/values.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>

#include "harness/generate/cases.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::array<const char*, 8> kNames{"normal",     "dominant", "huge",     "identical_keys",
                                            "constant_v", "tiny",     "integers", "deep"};
constexpr std::array<const char*, 4> kDecayNames{"rule", "none", "strong", "mixed"};

HostTensor filled(DType dtype, std::vector<std::int64_t> shape,
                  const std::function<double()>& draw) {
  HostTensor tensor(dtype, std::move(shape));
  for (std::int64_t i = 0; i < tensor.size(); ++i) tensor.set(i, draw());
  return tensor;
}

// A key that the query sees; itself if no other is found quickly.
std::int64_t visible_key(const Problem& problem, Stream& random, std::int64_t b,
                         std::int64_t query) {
  const Mask& mask = problem.mask;
  const std::int64_t N = problem.shape.N;
  const auto segment = [&](std::int64_t n) {
    return mask.segment_ids.empty() ? 0 : mask.segment_ids[static_cast<std::size_t>(b * N + n)];
  };
  const std::int64_t reach = mask.window > 0 ? mask.window - 1 : N;
  const std::int64_t low = std::max<std::int64_t>(0, query - reach);
  const std::int64_t high = mask.causal ? query : std::min(N - 1, query + reach);
  for (int attempt = 0; attempt < 4; ++attempt) {
    const auto span = static_cast<std::uint64_t>(high - low + 1);
    const std::int64_t key = low + static_cast<std::int64_t>(random.below(span));
    if (segment(key) == segment(query)) return key;
  }
  return query;
}

// k_j spells j in bits of +-kBit, q_i the bits of its chosen key: every other key scores at least 2
// kBit^2 = 2048 lower, beyond the exponent range of f32 and f64. v and d_out are small integers, so
// that all sums are exact.
Inputs dominant_inputs(const Case& drawn) {
  constexpr double kBit = 32;
  const Problem& problem = drawn.problem;
  const Shape& s = problem.shape;
  Stream random(drawn.value_seed);
  const auto integer = [&] { return static_cast<double>(random.below(9)) - 4; };
  Inputs inputs{HostTensor(problem.dtype, {s.B, s.N, s.H, s.D}),
                HostTensor(problem.dtype, {s.B, s.N, s.G, s.D}),
                filled(problem.dtype, {s.B, s.N, s.G, s.E}, integer),
                filled(problem.dtype, {s.B, s.N, s.H, s.E}, integer),
                {},
                {}};
  const auto spell = [&](HostTensor& tensor, std::int64_t row, std::int64_t number) {
    for (std::int64_t d = 0; d < s.D; ++d) {
      tensor.set(row * s.D + d, d < 62 && ((number >> d) & 1) != 0 ? kBit : -kBit);
    }
  };
  for (std::int64_t b = 0; b < s.B; ++b) {
    for (std::int64_t n = 0; n < s.N; ++n) {
      for (std::int64_t g = 0; g < s.G; ++g) spell(inputs.k, (b * s.N + n) * s.G + g, n);
      for (std::int64_t h = 0; h < s.H; ++h) {
        spell(inputs.q, (b * s.N + n) * s.H + h, visible_key(problem, random, b, n));
      }
    }
  }
  return inputs;
}

}  // namespace

const char* name_of(Decays decays) { return kDecayNames[static_cast<std::size_t>(decays)]; }

const char* name_of(Values values) { return kNames[static_cast<std::size_t>(values)]; }

Values parse_values(const std::string& name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("unknown values '{}'; allowed: {}", name, fmt::join(kNames, ", ")));
  }
  return static_cast<Values>(found - kNames.begin());
}

std::int64_t dominant_head_size(std::int64_t N) {
  std::int64_t bits = 1;
  while ((std::int64_t{1} << bits) < N) ++bits;
  return bits;
}

namespace {

// The first channel adds the same to all scores: powers of two that every type holds.
void deepen(const Problem& problem, Inputs& inputs) {
  constexpr double kDepth = 4e4, kQuery = 512;
  const double key = std::exp2(
      std::clamp(std::round(std::log2(kDepth / (kQuery * std::fabs(problem.scale)))), 0.0, 14.0));
  const std::int64_t D = problem.shape.D;
  for (std::int64_t i = 0; i < inputs.q.size(); i += D) inputs.q.set(i, -kQuery);
  for (std::int64_t i = 0; i < inputs.k.size(); i += D) inputs.k.set(i, key);
}

}  // namespace

Inputs make_inputs(const Case& drawn) {
  if (drawn.values == Values::kDominant && drawn.exact()) return dominant_inputs(drawn);
  const Problem& problem = drawn.problem;
  const Shape& s = problem.shape;
  const std::int64_t G = s.G * problem.layer_count();
  Stream random(drawn.value_seed);
  const auto normal = [&] {
    return drawn.values == Values::kIntegers ? static_cast<double>(random.below(9)) - 4
                                             : random.normal();
  };
  // Scores of standard deviation 1, or up to about +-1e4.
  const double q_size =
      drawn.values == Values::kHugeScores ? 3000 / std::sqrt(static_cast<double>(s.D)) : 1;
  // No number is subnormal in f32 and f16 alike: 2^-20 is subnormal in f16, and its squares vanish.
  const double size = drawn.values == Values::kTiny ? 0x1p-20 : 1;
  Inputs inputs;
  inputs.q = filled(problem.dtype, {s.B, s.N, s.H, s.D}, [&] { return q_size * size * normal(); });
  inputs.k = filled(problem.dtype, {s.B, s.N, G, s.D}, [&] { return size * normal(); });
  inputs.v = filled(problem.dtype, {s.B, s.N, G, s.E}, [&] { return size * normal(); });
  inputs.d_out = filled(problem.dtype, {s.B, s.N, s.H, s.E}, normal);
  if (drawn.values == Values::kDeepScores) deepen(problem, inputs);
  if (drawn.values == Values::kIdenticalKeys) {
    for (std::int64_t i = 0; i < inputs.k.size(); ++i) inputs.k.set(i, inputs.k.at(i % s.D));
  }
  if (drawn.values == Values::kConstantV) {
    for (std::int64_t i = 0; i < inputs.v.size(); ++i) inputs.v.set(i, inputs.v.at(i % s.E));
  }
  if (problem.projected > 0) {
    const double even = s.N > 0 ? 1 / std::sqrt(static_cast<double>(s.N)) : 1;
    const auto projection = [&] { return even * random.normal(); };
    inputs.projection_k = filled(problem.dtype, {s.N, problem.projected}, projection);
    inputs.projection_v = filled(problem.dtype, {s.N, problem.projected}, projection);
  }
  if (problem.module) add_linear_inputs(drawn, random, inputs);
  return inputs;
}

}  // namespace sp
