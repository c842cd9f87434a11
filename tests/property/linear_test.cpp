// Identities of linear attention that every algorithm must satisfy on any number of ranks. They
// need no reference.
//
// In f64 rounding moves these results by less than 1e-12 of their largest element, a lost, doubled
// or wrongly decayed state by many orders more.
// SPDX-License-Identifier: Apache-2.0
#include "tests/property/linear_setting.hpp"

namespace sp::test {
namespace {

constexpr double kRounding = 1e-12;

// Token n becomes token N-1-n.
HostTensor reversed(const HostTensor& x) {
  std::vector<std::int64_t> order = range(0, x.extent(1));
  std::reverse(order.begin(), order.end());
  return take(x, 1, order);
}

class LinearStates : public LinearSettings {};

// Ranks pass states between chunks of any length, 0 included; one rank has one long chunk.
TEST_P(LinearStates, PassedBetweenAnyChunksEqualOneLongChunk) {
  for_all_settings([](LinearSetting& s) {
    const Outputs whole = run(s.algorithm, s.problem, s.inputs, {1, 1});
    ASSERT_LE(relative_difference(s.run(), whole), kRounding);
    for (const World& world : {World{5, 5, 3}, World{16, 4}})
      ASSERT_LE(relative_difference(run(s.algorithm, s.problem, s.inputs, world), whole), kRounding)
          << "P=" << world.size;
  });
}

TEST_P(LinearStates, AChangedTokenLeavesEarlierCausalRowsBitwiseAlone) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    for_all_settings(
        [](LinearSetting& s) {
          if (!s.problem.mask.causal) return;
          const std::int64_t token = s.draw.integer(1, s.problem.shape.N - 1);
          const Outputs before = s.run();
          const Inputs other = inputs_for(s.problem, s.seed + 50, Values::kNormal, Decays::kMixed);
          for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out})
            replace_token(s.inputs.*x, other.*x, token);
          if (s.problem.module == Module::kGla)
            replace_token(s.inputs.log_decay, other.log_decay, token);
          const Outputs after = s.run();
          const auto earlier = range(0, token);
          ASSERT_TRUE(same_bits(take(after.out, 1, earlier), take(before.out, 1, earlier)));
          ASSERT_FALSE(same_bits(after.out, before.out));
          ASSERT_TRUE(same_bits(take(after.d_q, 1, earlier), take(before.d_q, 1, earlier)));
        },
        dtype);
  }
}

// The inputs or results of some tokens.
Inputs part_of(const Inputs& whole, const std::vector<std::int64_t>& tokens) {
  Inputs part = whole;
  for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out})
    part.*x = take(whole.*x, 1, tokens);
  if (whole.log_decay.shape().size() == 4) part.log_decay = take(whole.log_decay, 1, tokens);
  return part;
}
Outputs part_of(const Outputs& whole, const std::vector<std::int64_t>& tokens) {
  Outputs part;
  for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
    part.*x = take(whole.*x, 1, tokens);
  if (!whole.lse.absent()) part.lse = take(whole.lse, 2, tokens);
  if (whole.d_log_decay.shape().size() == 4) part.d_log_decay = take(whole.d_log_decay, 1, tokens);
  return part;
}

// Gradients of what all documents share, taken out of `document` and added up.
void add_shared(HostTensor& sum, HostTensor& document) {
  if (document.shape().size() != 1) return;
  sum = sum.absent() ? document : combine(1, sum, 1, document);
  document = {};
}

// Documents straddle ranks in the packed run and are spread over all ranks in the separate ones.
TEST_P(LinearStates, PackedDocumentsEqualDocumentsAlone) {
  for_all_settings([](LinearSetting& s) {
    Problem packed = s.problem;
    std::vector<std::int64_t> borders{0};
    while (borders.back() < packed.shape.N)
      borders.push_back(std::min(packed.shape.N, borders.back() + s.draw.integer(1, 12)));
    packed.mask.segment_ids.assign(static_cast<std::size_t>(packed.shape.B * packed.shape.N), 0);
    for (std::int64_t b = 0; b < packed.shape.B; ++b)
      for (std::size_t i = 0; i + 1 < borders.size(); ++i)
        for (std::int64_t n = borders[i]; n < borders[i + 1]; ++n)
          packed.mask.segment_ids[static_cast<std::size_t>(b * packed.shape.N + n)] =
              static_cast<std::int32_t>(i);
    if (!s.algorithm.supports(packed, s.world)) packed.mask.causal = true;
    const Outputs together = run(s.algorithm, packed, s.inputs, s.world);
    Outputs shared;
    for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
      const auto tokens = range(borders[i], borders[i + 1]);
      Problem one = packed;
      one.mask.segment_ids.clear();
      one.shape.N = std::ssize(tokens);
      Outputs alone = run(s.algorithm, one, part_of(s.inputs, tokens), s.world);
      for (const auto x : {&Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta})
        add_shared(shared.*x, alone.*x);
      ASSERT_LE(relative_difference(part_of(together, tokens), alone), kRounding)
          << "document " << i;
    }
    for (const auto x : {&Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta}) {
      if ((shared.*x).absent()) continue;
      ASSERT_LE(difference(together.*x, shared.*x), kRounding * std::max(1.0, largest(shared.*x)));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, LinearStates, testing::ValuesIn(subjects_where(of_states)),
                         subject_of);

class LinearIdentity : public LinearSettings {};

// With one d_out, out, d_q and d_k are linear in the values, and d_v does not know them.
TEST_P(LinearIdentity, ResultsAreLinearInTheValues) {
  for_all_settings([](LinearSetting& s) {
    const HostTensor v = s.inputs.v, w = s.draw.normal(DType::kF64, v.shape());
    const bool whole = s.problem.mask.window == 0 && !is_normalised(*s.problem.module);
    const Outputs of_v = s.run();
    s.inputs.v = w;
    const Outputs of_w = s.run();
    s.inputs.v = combine(2, v, -3, w);
    const Outputs both = s.run();
    for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_log_decay}) {
      if ((of_v.*x).absent() || (x != &Outputs::out && !whole)) continue;
      const HostTensor sum = combine(2, of_v.*x, -3, of_w.*x);
      ASSERT_LE(difference(both.*x, sum), kRounding * std::max(1.0, largest(sum)));
    }
    ASSERT_TRUE(same_bits(of_v.d_v, of_w.d_v));
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, LinearIdentity, testing::ValuesIn(subjects_where(of_linear)),
                         subject_of);

class DecayOfOne : public EachSubject {};

// All sums of small integers are exact, in whatever order and over whatever heads they are formed.
TEST_P(DecayOfOne, EqualsNoDecayBitForBitOnIntegers) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    for (const World& world : {World{1, 1}, World{3, 3, 2}, World{5, 1}}) {
      for (const std::int64_t N : {1, 4, 29, 150}) {
        Problem basic = problem_for({&algorithm(), Module::kBasic}, {2, N, 4, 2, 5, 3});
        basic.dtype = dtype;
        basic.scale = 1;
        Problem decaying = basic;
        decaying.module = GetParam().module;
        const auto seed = static_cast<std::uint64_t>(N);
        const Outputs without =
            run(algorithm(), basic, inputs_for(basic, seed, Values::kIntegers), world);
        const Outputs with =
            run(algorithm(), decaying, inputs_for(decaying, seed, Values::kIntegers, Decays::kNone),
                world);
        for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
          EXPECT_TRUE(same_bits(with.*x, without.*x))
              << "P=" << world.size << ' ' << describe(decaying);
      }
    }
  }
}

bool of_decay(const Subject& s) { return of_linear(s) && decay_of(*s.module) != Decay::kNone; }

INSTANTIATE_TEST_SUITE_P(Registry, DecayOfOne, testing::ValuesIn(subjects_where(of_decay)),
                         subject_of);

class TimeReversal : public LinearSettings {};

// A gradient looks into the future as an output looks into the past. With a constant decay
//   d_v of (q, k, d_out)  =  the reversed output of (k, q, d_out), reversed in time,
//   d_k of (q, v, d_out)  =  the reversed output of (v, d_out, q), reversed in time.
TEST_P(TimeReversal, OfAnOutputIsAGradient) {
  for_all_settings([](LinearSetting& s) {
    s.problem.shape.H = s.problem.shape.G;  // heads are not summed
    s.inputs = inputs_for(s.problem, s.seed, Values::kNormal, Decays::kMixed);
    const Outputs result = s.run();
    LinearSetting back = s;
    const std::int64_t N = s.problem.shape.N;
    for (std::int64_t b = 0; b < s.problem.shape.B && !s.problem.mask.segment_ids.empty(); ++b)
      std::reverse(back.problem.mask.segment_ids.begin() + b * N,
                   back.problem.mask.segment_ids.begin() + (b + 1) * N);
    const auto output_of = [&](const HostTensor& q, const HostTensor& k, const HostTensor& v) {
      back.problem.shape.D = q.extent(3);
      back.problem.shape.E = v.extent(3);
      back.inputs.q = reversed(q);
      back.inputs.k = reversed(k);
      back.inputs.v = reversed(v);
      back.inputs.d_out = {};
      return reversed(back.run().out);
    };
    const Inputs& in = s.inputs;
    ASSERT_LE(difference(result.d_v, output_of(in.k, in.q, in.d_out)),
              kRounding * std::max(1.0, largest(result.d_v)));
    ASSERT_LE(difference(result.d_k, output_of(in.v, in.d_out, in.q)),
              kRounding * std::max(1.0, largest(result.d_k)));
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, TimeReversal,
                         testing::ValuesIn(subjects_where(of_constant_decay)), subject_of);

}  // namespace
}  // namespace sp::test
