// Identities of softmax attention that every algorithm must satisfy on any number of ranks. They
// need no reference.
//
// In f64, so that whatever is not rounding is seen: rounding moves these results by less than
// 1e-12, a lost, doubled or misplaced block by many orders more.
// SPDX-License-Identifier: Apache-2.0
#include "tests/property/everyone.hpp"
#include "tests/property/tensors.hpp"

namespace sp::test {
namespace {

constexpr double kRounding = 1e-12;
const std::vector<World> kWorlds{{1, 1}, {2, 1}, {3, 3}, {4, 2}, {6, 3}};
constexpr std::uint64_t kSeeds = 3;

struct Setting {
  const Algorithm& algorithm;
  World world;
  Draw& draw;
  Problem problem;
  Inputs inputs;

  Outputs run() const { return test::run(algorithm, problem, inputs, world); }
};

class Identity : public Everyone {
 protected:
  // f(setting) on random problems in every world.
  template <class F>
  void for_all_settings(F&& f) {
    for (const World& world : kWorlds) {
      for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        Draw draw(seed * 100 + static_cast<std::uint64_t>(world.size));
        Problem problem;
        problem.dtype = DType::kF64;
        problem.shape = draw.shape(30);
        problem.shape.N += 2;
        problem = with_heads_for(*GetParam(), problem, world);
        problem.mask = draw.mask(problem.shape);
        problem.scale = default_scale(problem.shape);
        Setting setting{*GetParam(), world, draw, problem, draw.inputs(problem)};
        SCOPED_TRACE("P=" + std::to_string(world.size) + " seed " + std::to_string(seed) + ": " +
                     describe(problem));
        f(setting);
        if (HasFatalFailure()) return;
      }
    }
  }
};

TEST_P(Identity, ConstantValuesGiveConstantOutput) {
  for_all_settings([](Setting& s) {
    const std::int64_t E = s.problem.shape.E;
    for (std::int64_t n = 0; n < s.inputs.v.size(); ++n)
      s.inputs.v.set(n, static_cast<double>(n % E) - 0.5);
    const Outputs result = s.run();
    for (std::int64_t n = 0; n < result.out.size(); ++n)
      ASSERT_NEAR(result.out.at(n), static_cast<double>(n % E) - 0.5, kRounding) << n;
    ASSERT_LE(difference(result.d_q, HostTensor(DType::kF64, result.d_q.shape())), kRounding);
  });
}

TEST_P(Identity, OutputIsLinearInTheValues) {
  for_all_settings([](Setting& s) {
    const HostTensor v = s.inputs.v, w = s.draw.normal(DType::kF64, v.shape());
    const HostTensor of_v = s.run().out;
    s.inputs.v = w;
    const HostTensor of_w = s.run().out;
    s.inputs.v = combine(2, v, -3, w);
    ASSERT_LE(difference(s.run().out, combine(2, of_v, -3, of_w)), kRounding);
  });
}

TEST_P(Identity, ResultDependsNeitherOnTheRanksNorOnTheSharding) {
  for_all_settings([](Setting& s) {
    const Outputs alone = run(*find_algorithm("ring/contiguous"), s.problem, s.inputs, {1, 1});
    ASSERT_LE(relative_difference(s.run(), alone), kRounding);
  });
}

TEST_P(Identity, OneVectorAddedToAllKeysShiftsTheLogSumExpAlone) {
  for_all_settings([](Setting& s) {
    const Outputs before = s.run();
    const auto [B, N, H, G, D, E] = s.problem.shape;
    const HostTensor u = s.draw.normal(DType::kF64, {D});
    for (std::int64_t n = 0; n < s.inputs.k.size(); ++n)
      s.inputs.k.set(n, s.inputs.k.at(n) + u.at(n % D));
    Outputs after = s.run();
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t h = 0; h < H; ++h)
        for (std::int64_t i = 0; i < N; ++i) {
          double shift = 0;
          for (std::int64_t d = 0; d < D; ++d)
            shift += s.problem.scale * s.inputs.q.at(((b * N + i) * H + h) * D + d) * u.at(d);
          const std::int64_t row = (b * H + h) * N + i;
          after.lse.set(row, after.lse.at(row) - shift);
        }
    ASSERT_LE(relative_difference(after, before), kRounding);
  });
}

TEST_P(Identity, AChangedTokenLeavesEarlierCausalRowsBitwiseAlone) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    for_all_settings([&](Setting& s) {
      s.problem.mask.causal = true;
      s.problem.dtype = dtype;
      s.inputs = s.draw.inputs(s.problem);
      const std::int64_t token = s.draw.integer(1, s.problem.shape.N - 1);
      const Outputs before = s.run();
      const Inputs other = s.draw.inputs(s.problem);
      replace_token(s.inputs.q, other.q, token);
      replace_token(s.inputs.k, other.k, token);
      replace_token(s.inputs.v, other.v, token);
      replace_token(s.inputs.d_out, other.d_out, token);
      const Outputs after = s.run();
      const auto earlier = range(0, token);
      ASSERT_TRUE(same_bits(take(after.out, 1, earlier), take(before.out, 1, earlier)));
      ASSERT_TRUE(same_bits(take(after.lse, 2, earlier), take(before.lse, 2, earlier)));
      ASSERT_TRUE(same_bits(take(after.d_q, 1, earlier), take(before.d_q, 1, earlier)));
    });
  }
}

// Documents straddle ranks in the packed run and are spread over all ranks in the separate ones.
TEST_P(Identity, PackedDocumentsEqualDocumentsAlone) {
  for_all_settings([](Setting& s) {
    s.problem.mask.segment_ids.clear();
    Problem packed = s.problem;
    std::vector<std::int64_t> borders{0};
    while (borders.back() < packed.shape.N)
      borders.push_back(std::min(packed.shape.N, borders.back() + s.draw.integer(1, 12)));
    packed.mask.segment_ids.resize(static_cast<std::size_t>(packed.shape.B * packed.shape.N));
    for (std::int64_t b = 0; b < packed.shape.B; ++b)
      for (std::size_t i = 0; i + 1 < borders.size(); ++i)
        for (std::int64_t n = borders[i]; n < borders[i + 1]; ++n)
          packed.mask.segment_ids[static_cast<std::size_t>(b * packed.shape.N + n)] =
              static_cast<std::int32_t>(i);
    const Outputs together = run(s.algorithm, packed, s.inputs, s.world);
    for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
      const auto tokens = range(borders[i], borders[i + 1]);
      Problem one = s.problem;
      one.shape.N = std::ssize(tokens);
      const auto part = [&](const HostTensor& whole) { return take(whole, 1, tokens); };
      const Inputs inputs{
          part(s.inputs.q), part(s.inputs.k), part(s.inputs.v), part(s.inputs.d_out), {}, {}};
      const Outputs mine{part(together.out),
                         take(together.lse, 2, tokens),
                         part(together.d_q),
                         part(together.d_k),
                         part(together.d_v),
                         {},
                         {}};
      ASSERT_LE(relative_difference(mine, run(s.algorithm, one, inputs, s.world)), kRounding)
          << "document " << i;
    }
  });
}

TEST_P(Identity, KeysMayBePermutedWhereNothingIsMasked) {
  for_all_settings([](Setting& s) {
    s.problem.mask = {};
    const Outputs before = s.run();
    std::vector<std::int64_t> order = range(0, s.problem.shape.N);
    for (std::size_t n = order.size(); n > 1; --n)
      std::swap(order[n - 1],
                order[static_cast<std::size_t>(s.draw.integer(0, static_cast<int>(n) - 1))]);
    s.inputs.k = take(s.inputs.k, 1, order);
    s.inputs.v = take(s.inputs.v, 1, order);
    const Outputs after = s.run();
    const Outputs expected{
        before.out, before.lse, before.d_q, take(before.d_k, 1, order), take(before.d_v, 1, order),
        {},         {}};
    ASSERT_LE(relative_difference(after, expected), kRounding);
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, Identity, testing::ValuesIn(softmax_algorithms()), id_of);

}  // namespace
}  // namespace sp::test
