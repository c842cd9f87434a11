// Random problems, with shrinking: what the property tests and `seqpar verify` draw.
//
// A case is small numbers only; its tensors follow from them and the value seed, so shrinking works
// on shapes, ranks and mask terms, toward the smallest. Drawn lengths include 0, 1, P-1, P, P+1,
// multiples of P give or take one, primes and the borders of SIMD tiles; one case in twelve is long, up
// to 5000 tokens, so that every rank has several tiles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "optimized/algorithms/algorithm.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// How the tensors are filled. kDominant has an exact answer: one key per query outweighs all others
// by more than the exponent range, so out must equal a row of v, and all gradients are known, bit
// for bit.
// kDeepScores: all scores lie near -4e4, one apart from each other: below every number that stands for minus infinity.
// kIntegers is the exact answer of linear attention: small integers without decay, all sums exact.
enum class Values : std::uint8_t {
  kNormal,
  kDominant,
  kHugeScores,
  kIdenticalKeys,
  kConstantV,
  kTiny,
  kIntegers,
  kDeepScores
};
const char* name_of(Values values);
Values parse_values(const std::string& name);  // throws Error(kUsage) with the allowed names

// Decays of linear attention: by the module's rule (gates: as at the start of training), none at all,
// so strong that a few tokens erase the past, or from each of these at random.
enum class Decays : std::uint8_t { kRule, kNone, kStrong, kMixed };
const char* name_of(Decays decays);

struct Case {
  Problem problem;
  World world;
  Values values = Values::kNormal;
  Decays decays = Decays::kRule;
  std::uint64_t value_seed = 0;
  bool exact() const {
    return (values == Values::kDominant && problem.family() == Family::kSoftmax) ||
           values == Values::kIntegers;
  }
};
std::string describe(const Case& drawn);

// What the caller fixes; everything else is drawn.
struct Pins {
  std::vector<int> ranks;  // empty: 1..9 and 16
  std::optional<int> ranks_per_node;
  std::optional<std::int64_t> batch, tokens, heads, kv_heads, head_size, value_head_size, window,
      projected;
  std::optional<int> splits;
  std::optional<Module> module;
  std::optional<std::string> layers;
  std::optional<bool> causal, segments;
  std::optional<DType> dtype;
  std::optional<Values> values;
  int most_ranks = 1 << 20;        // of the back-end
  std::int64_t most_heads = 1024;  // drawn query heads, where more cost time and show nothing new
  std::int64_t longest = 5000;     // drawn length
  bool f64 = true;                 // false: the back-end does not know it, f32 is drawn instead
};

Inputs make_inputs(const Case& drawn);

// Runs `fails` on the case number `index` of the stream `seed` of a family. If it fails, shrinks:
// at most `most_shrinks` smaller cases are tried, and the smallest that still fails is returned.
// nullopt: the case passed. `fails` must decide alike in every process that draws the same stream.
std::optional<Case> find_failure(const Pins& pins, Family family, std::uint64_t seed,
                                 std::uint64_t index, int most_shrinks,
                                 const std::function<bool(const Case&)>& fails);

}  // namespace sp
