// SPDX-License-Identifier: Apache-2.0
#include "harness/generate/cases.hpp"

#include <fmt/format.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "harness/generate/values.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr double kLong = 300;  // tokens of the shortest long case
constexpr int kLengths = 70;   // 0 and up: of most others

// The raw numbers of a case; of every one 0 is the least and the plainest.
struct Draw {
  int world, node, length_kind, length, batch, group, key_heads, divisible, head_size, value_size;
  int causal, window, segments, dtype, values, projected;
  int module, decays, layers, splits;
  std::uint64_t seed;
};

rc::Gen<int> below(int end) { return rc::gen::inRange(0, end); }

rc::Gen<Draw> draws() {
  return rc::gen::build<Draw>(
      rc::gen::set(&Draw::world, below(10)), rc::gen::set(&Draw::node, below(8)),
      rc::gen::set(&Draw::length_kind, below(4)), rc::gen::set(&Draw::length, below(kLengths)),
      rc::gen::set(&Draw::batch, below(4)), rc::gen::set(&Draw::group, below(3)),
      rc::gen::set(&Draw::key_heads, below(3)), rc::gen::set(&Draw::divisible, below(2)),
      rc::gen::set(&Draw::head_size, below(20)), rc::gen::set(&Draw::value_size, below(20)),
      rc::gen::set(&Draw::causal, below(2)), rc::gen::set(&Draw::window, below(40)),
      rc::gen::set(&Draw::segments, below(8)), rc::gen::set(&Draw::dtype, below(8)),
      rc::gen::set(&Draw::values, below(12)), rc::gen::set(&Draw::projected, below(9)),
      rc::gen::set(&Draw::module, below(6)), rc::gen::set(&Draw::decays, below(8)),
      rc::gen::set(&Draw::layers, below(7)), rc::gen::set(&Draw::splits, below(6)),
      rc::gen::set(&Draw::seed, rc::gen::arbitrary<std::uint64_t>()));
}

template <class T, std::size_t n>
T pick(const std::array<T, n>& options, int index) {
  return options[static_cast<std::size_t>(index) % n];
}

World world_of(const Draw& d, const Pins& pins) {
  std::vector<int> sizes = pins.ranks;
  if (sizes.empty()) sizes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16};
  std::erase_if(sizes, [&](int size) { return size > pins.most_ranks; });
  if (sizes.empty()) sizes = {pins.most_ranks};
  const int size = sizes[static_cast<std::size_t>(d.world) % sizes.size()];
  const int splits = pins.splits.value_or(pick(std::array{1, 1, 1, 2, 3, 64}, d.splits));
  if (pins.ranks_per_node) return {size, *pins.ranks_per_node, splits};
  std::vector<int> divisors;
  for (int node = 1; node <= size; ++node) {
    if (size % node == 0) divisors.push_back(node);
  }
  return {size, divisors[static_cast<std::size_t>(d.node) % divisors.size()], splits};
}

std::int64_t length_of(const Draw& d, int ranks) {
  constexpr std::array<int, 17> kBorders{0,  1,  2,  3,  5,  7,  13, 15, 16,
                                         17, 31, 33, 61, 63, 64, 65, 97};
  switch (d.length_kind) {
    case 1:
      return pick(kBorders, d.length);
    case 2:
      return std::max(
          0, ranks * (d.length % 7) + d.length % 3 - 1);  // multiples of P, give or take one
    default:
      return d.length;
  }
}

// One case in twelve: so long that every rank has several tiles of a kernel.
bool is_long(const Draw& d, const Pins& pins) {
  return d.length_kind == 3 && d.length >= 10 && d.length % 5 >= 3 && !pins.tokens &&
         static_cast<double>(pins.longest) >= kLong;
}

Module module_of(const Draw& d, const Pins& pins, Family family) {
  return pins.module.value_or(kModules[family == Family::kHybrid ? d.module % 3 : d.module]);
}

// Limits of normalisers and stacks take worst cases for what random walks do: they were fitted up to 500 tokens.
bool has_worst_cases(const Draw& d, const Pins& pins, Family family) {
  return family == Family::kHybrid ||
         (family == Family::kLinear && is_normalised(module_of(d, pins, family)));
}

// Evenly over the logarithms of 300 to 5000 tokens, and no more than takes a moment: the blocked double side of softmax,
// products of all pairs in the algorithms of linear attention, or plain loops over pairs under a normaliser and, many times,
// in a stack.
std::int64_t long_length(const Draw& d, const Pins& pins, const Shape& s, Family family) {
  const bool worst_cases = has_worst_cases(d, pins, family);
  const double most_work = family == Family::kHybrid ? 2e7 : worst_cases ? 1e8 : 2e9;
  const auto per_pair = static_cast<double>(s.H * (s.D + s.E));
  const double longest = worst_cases ? 500 : static_cast<double>(pins.longest);
  const double wanted = kLong * std::pow(longest / kLong, d.length / (kLengths - 1.0));
  return static_cast<std::int64_t>(std::min(wanted, std::sqrt(most_work / per_pair)));
}

// Packed documents of uneven lengths; ids are not sorted, and in one of three cases they repeat.
void draw_segments(const Draw& d, Problem& problem) {
  const Shape& s = problem.shape;
  Stream random(d.seed ^ 0x5e6u);
  const std::int64_t longest = std::max<std::int64_t>(1, s.N / 2);
  for (std::int64_t b = 0; b < s.B; ++b) {
    std::int32_t id = 0;
    std::int64_t left = 0;
    for (std::int64_t n = 0; n < s.N; ++n) {
      if (left == 0) {
        left = 1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(longest)));
        id = static_cast<std::int32_t>(random.below(d.segments == 7 ? 3 : 1000)) - 1;
      }
      problem.mask.segment_ids.push_back(id);
      --left;
    }
  }
}

void draw_mask(const Draw& d, const Pins& pins, Problem& problem) {
  problem.mask.causal = pins.causal.value_or(d.causal == 1);
  // Three in four problems have no window; a drawn one is at most about the length.
  problem.mask.window = pins.window.value_or(d.window % 4 == 3 ? 1 + d.window * 2 : 0);
  const bool segments = pins.segments.value_or(d.segments >= 5);
  if (segments) draw_segments(d, problem);
}

// Whether sums of products of integers up to 4 stay below 2^24, where f32 is exact.
bool sums_are_exact(const Shape& s) {
  const double largest = 64.0 * static_cast<double>(std::max(s.D, s.E)) * static_cast<double>(s.N) *
                         static_cast<double>(s.H / s.G);
  return largest < 0x1p24;
}

// Everything that linear attention and stacks have beyond a shape.
void draw_linear(const Draw& d, const Pins& pins, Family family, Case& drawn) {
  Problem& problem = drawn.problem;
  Shape& s = problem.shape;
  const bool stack = family == Family::kHybrid;
  const Module module = module_of(d, pins, family);
  problem.module = module;
  const bool normalised = is_normalised(module);
  // States of whole heads under a feature map grow with the square of the head size.
  if (normalised && !pins.head_size) s.D = std::min<std::int64_t>(s.D, 17);
  problem.mask.causal = stack || pins.causal.value_or(d.causal == 1 || d.window % 2 == 0);
  if (module == Module::kBased && problem.mask.causal && !stack)
    problem.mask.window = pins.window.value_or(d.window % 2 == 1 ? 1 + d.window / 2 : 0);
  if (pins.segments.value_or(d.segments >= 5)) draw_segments(d, problem);
  problem.epsilon = normalised && d.decays % 2 == 1 ? 1e-3 : default_epsilon(module);
  const bool exact = !normalised && !stack && sums_are_exact(s) &&
                     (drawn.values == Values::kDominant || drawn.values == Values::kIntegers);
  if (exact) {
    drawn.values = Values::kIntegers;
  } else if (drawn.values == Values::kDominant || drawn.values == Values::kHugeScores ||
             drawn.values == Values::kDeepScores || drawn.values == Values::kIntegers ||
             (stack && drawn.values == Values::kTiny)) {
    drawn.values = Values::kNormal;  // products of tiny values over layers leave the range of f32
  }
  drawn.decays =
      exact ? Decays::kNone
            : pick(std::array{Decays::kRule, Decays::kRule, Decays::kMixed, Decays::kStrong,
                              Decays::kRule, Decays::kMixed, Decays::kNone, Decays::kRule},
                   d.decays);
  const bool scaled = stack || module == Module::kRetention || module == Module::kGla;
  problem.scale = scaled && !exact ? default_scale(s) : 1.0;
  if (!stack) return;
  s.E = s.D;
  problem.layers = pins.layers.value_or(
      pick(std::array<std::string, 7>{"L", "N", "LN", "NL", "LLN", "LLLN", "NLLL"}, d.layers));
}

Case build(const Draw& d, const Pins& pins, Family family) {
  Case drawn;
  drawn.world = world_of(d, pins);
  drawn.value_seed = d.seed;
  Problem& problem = drawn.problem;
  Shape& s = problem.shape;
  const int P = drawn.world.size;
  s.B = pins.batch.value_or(pick(std::array{1, 1, 2, 0}, d.batch));
  s.N = pins.tokens.value_or(length_of(d, P));
  const bool longer = is_long(d, pins);
  if (longer && !pins.batch) s.B = 1;
  const std::int64_t most_heads =
      longer ? std::min<std::int64_t>(pins.most_heads, 4) : pins.most_heads;
  const int unit = d.divisible == 1 && P <= 9 ? P : 1;
  const auto units = [&](std::int64_t wanted, std::int64_t size) {
    return size * std::clamp<std::int64_t>(most_heads / size, 1, wanted);
  };
  s.G = pins.kv_heads.value_or(units(1 + d.key_heads, unit));
  if (!pins.kv_heads && pins.heads && *pins.heads % s.G != 0) s.G = 1;
  s.H = pins.heads.value_or(units(1 + d.group, s.G));
  const bool large = static_cast<double>(s.H) * static_cast<double>(s.N) > 1000;
  constexpr std::array<int, 20> kSizes{1, 2,  3,  4,  8, 5,  16, 7,  15, 17,
                                       8, 32, 33, 12, 8, 16, 64, 65, 24, 96};
  const int most = large ? 10 : 20;
  s.D = pins.head_size.value_or(kSizes[static_cast<std::size_t>(d.head_size % most)]);
  s.E = pins.value_head_size.value_or(
      pins.head_size ? *pins.head_size : kSizes[static_cast<std::size_t>(d.value_size % most)]);
  problem.dtype =
      pins.dtype.value_or(pick(std::array{DType::kF32, DType::kBF16, DType::kF32, DType::kBF16,
                                          DType::kF64, DType::kF16, DType::kF32, DType::kBF16},
                               d.dtype));
  if (longer) s.N = long_length(d, pins, s, family);
  // There long sums of the reference in f64 round more than a blocked algorithm.
  const bool f64 = pins.f64 && !(longer && has_worst_cases(d, pins, family));
  if (problem.dtype == DType::kF64 && !pins.dtype && !f64) problem.dtype = DType::kF32;
  drawn.values = pins.values.value_or(pick(
      std::array{Values::kNormal, Values::kDominant, Values::kNormal, Values::kNormal,
                 Values::kHugeScores, Values::kIdenticalKeys, Values::kNormal, Values::kConstantV,
                 Values::kDominant, Values::kTiny, Values::kDeepScores, Values::kDominant},
      d.values));
  validate(problem);  // pinned shapes may be too large: before any loop over tokens
  if (family == Family::kLinear || family == Family::kHybrid) {
    draw_linear(d, pins, family, drawn);
    return drawn;
  }
  if (drawn.values == Values::kIntegers) drawn.values = Values::kNormal;
  if (family == Family::kProjectedSoftmax) {
    problem.projected = pins.projected.value_or(1 + d.projected * 3);
    if (drawn.values == Values::kDominant || drawn.values == Values::kDeepScores)
      drawn.values = Values::kNormal;
  } else {
    draw_mask(d, pins, problem);
  }
  if (drawn.values == Values::kDominant && !pins.head_size)
    s.D = std::max(s.D, dominant_head_size(s.N));
  problem.scale = drawn.exact() ? 1.0 : default_scale(s);
  return drawn;
}

// Takes from a failing case whatever it fails without: first what makes it special, then its size.
class Shrinker {
 public:
  Shrinker(const Draw& failing, const Pins& pins, Family family,
           const std::function<bool(const Case&)>& fails, int most_tries)
      : draw_(failing), pins_(pins), family_(family), fails_(fails), left_(most_tries) {}

  Case smallest() const { return build(draw_, pins_, family_); }

  void run() {
    constexpr int Draw::* kSpecial[] = {
        &Draw::values, &Draw::decays, &Draw::segments, &Draw::window, &Draw::splits, &Draw::node,
        &Draw::causal, &Draw::dtype,  &Draw::module,   &Draw::layers, &Draw::batch};
    constexpr int Draw::* kSizes[] = {
        &Draw::length_kind, &Draw::length, &Draw::node,      &Draw::world,      &Draw::divisible,
        &Draw::key_heads,   &Draw::group,  &Draw::head_size, &Draw::value_size, &Draw::projected,
        &Draw::batch,       &Draw::window, &Draw::splits};
    bool smaller = true;
    while (std::exchange(smaller, false) && left_ > 0) {
      for (const auto field : kSpecial) smaller |= fails_with(field, 0);
      smaller |= plain_length();
      for (const auto field : kSizes) smaller |= reduce(field);
    }
  }

 private:
  // 0, then half of it, three quarters, ...: the first that fails, and on from there.
  bool reduce(int Draw::* field) {
    bool smaller = false;
    for (int off = draw_.*field; off > 0;) {
      const bool failed = fails_with(field, draw_.*field - off);
      smaller |= failed;
      off = failed ? draw_.*field : off / 2;
    }
    return smaller;
  }

  bool fails_with(int Draw::* field, int value) {
    if (draw_.*field == value) return false;
    Draw changed = draw_;
    changed.*field = value;
    return take(changed);
  }

  // The same length, of no special kind any more.
  bool plain_length() {
    const std::int64_t tokens = smallest().problem.shape.N;
    if (draw_.length_kind == 0 || tokens >= kLengths) return false;
    Draw changed = draw_;
    changed.length_kind = 0;
    changed.length = static_cast<int>(tokens);
    return take(changed);
  }

  // If it fails too.
  bool take(const Draw& changed) {
    if (left_ == 0) return false;
    const Case candidate = build(changed, pins_, family_);
    if (describe(candidate) != describe(smallest())) {  // not a pin, or what another number decides
      --left_;
      if (!fails_(candidate)) return false;
    }
    draw_ = changed;
    return true;
  }

  Draw draw_;
  const Pins& pins_;
  Family family_;
  const std::function<bool(const Case&)>& fails_;
  int left_;
};

}  // namespace

std::string describe(const Case& drawn) {
  std::string text = fmt::format("P={} {} values={}", drawn.world.size, describe(drawn.problem),
                                 name_of(drawn.values));
  if (drawn.problem.module) text += fmt::format(" decays={}", name_of(drawn.decays));
  if (drawn.world.splits > 1) text += fmt::format(" splits={}", drawn.world.splits);
  if (drawn.world.node_size > 1) text += fmt::format(" ranks-per-node={}", drawn.world.node_size);
  return text;
}

std::optional<Case> find_failure(const Pins& pins, Family family, std::uint64_t seed,
                                 std::uint64_t index, int most_shrinks,
                                 const std::function<bool(const Case&)>& fails) {
  constexpr int kSize = 100;  // RapidCheck's full range
  const rc::Random random(
      rc::Random::Key{seed, index, static_cast<std::uint64_t>(family), 0x736571u});
  Shrinker shrinker{draws()(random, kSize).value(), pins, family, fails, most_shrinks};
  if (!fails(shrinker.smallest())) return std::nullopt;
  shrinker.run();
  return shrinker.smallest();
}

}  // namespace sp
