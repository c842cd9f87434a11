// Gradients against differences of the forward pass, in random directions, on any number of ranks.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tests/property/everyone.hpp"
#include "tests/property/tensors.hpp"

namespace sp::test {
namespace {

const std::vector<World> kWorlds{{1, 1}, {2, 1}, {3, 3}, {4, 2}, {6, 3, 2}};
constexpr std::uint64_t kSeeds = 3;

struct Pair {
  HostTensor Inputs::* input;
  HostTensor Outputs::* gradient;
};
constexpr Pair kPairs[] = {{&Inputs::q, &Outputs::d_q},
                           {&Inputs::k, &Outputs::d_k},
                           {&Inputs::v, &Outputs::d_v},
                           {&Inputs::projection_k, &Outputs::d_projection_k},
                           {&Inputs::projection_v, &Outputs::d_projection_v},
                           {&Inputs::log_decay, &Outputs::d_log_decay},
                           {&Inputs::gamma, &Outputs::d_gamma},
                           {&Inputs::beta, &Outputs::d_beta}};

void draw_mask(Draw& draw, const Algorithm& algorithm, const World& world, Problem& problem) {
  const Problem plain = problem;
  problem.mask = draw.mask(problem.shape);
  if (!problem.module) return;
  if (problem.module != Module::kBased || !problem.layers.empty()) problem.mask.window = 0;
  if (problem.mask.window > 0 || !problem.layers.empty()) problem.mask.causal = true;
  if (algorithm.supports(problem, world)) return;
  problem.mask.causal = true;
  problem.mask.window = 0;
}

// Differences mean nothing where a normaliser changes within a step: epsilon keeps it away from 0,
// and well separated channels keep the deviations of Rebased's layer norm away from it.
void smooth(Problem& problem) {
  if (!problem.module || !is_normalised(*problem.module)) return;
  problem.epsilon = 1;
  problem.shape.D = std::max<std::int64_t>(problem.shape.D, 4);
}

struct Moved {
  Inputs inputs, direction;
};
Moved draw_inputs(Draw& draw, const Problem& problem, const World& world, std::uint64_t seed) {
  Moved moved{make_inputs({problem, world, Values::kNormal, Decays::kRule, seed}), {}};
  // Away from 0 by more than any step: log_decay is never positive.
  for (std::int64_t n = 0; n < moved.inputs.log_decay.size(); ++n)
    moved.inputs.log_decay.set(n, -0.02 - 0.01 * static_cast<double>(draw.integer(0, 30)));
  if (problem.module == Module::kRebased) {
    moved.inputs.q = combine(3, moved.inputs.q, 0, moved.inputs.q);
    moved.inputs.k = combine(3, moved.inputs.k, 0, moved.inputs.k);
  }
  for (const Pair& pair : kPairs) {
    const HostTensor& x = moved.inputs.*pair.input;
    if (!x.absent()) moved.direction.*pair.input = draw.normal(DType::kF64, x.shape());
  }
  return moved;
}

class Gradient : public EachSubject {};

// <d_out, J direction> from the gradients, and as a central difference of fourth order.
TEST_P(Gradient, MatchesACentralDifferenceInARandomDirection) {
  constexpr double kStep = 1e-4, kLimit = 1e-8;  // errors: kStep^4 = 1e-16, 1e-15 / kStep = 1e-11
  for (const World& world : kWorlds) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      Draw draw(seed);
      Problem problem = problem_for(GetParam(), draw.shape(24));
      problem.dtype = DType::kF64;
      smooth(problem);
      problem = with_heads_for(algorithm(), problem, world);
      if (problem.projected == 0) draw_mask(draw, algorithm(), world, problem);
      const Moved drawn = draw_inputs(draw, problem, world, seed);
      const Inputs &inputs = drawn.inputs, &direction = drawn.direction;
      const auto loss = [&](double step) {
        Inputs moved = inputs;
        moved.d_out = {};
        for (const Pair& pair : kPairs) {
          if (!(inputs.*pair.input).absent())
            moved.*pair.input = combine(1, inputs.*pair.input, step, direction.*pair.input);
        }
        return dot(inputs.d_out, run(algorithm(), problem, moved, world).out);
      };
      const Outputs result = run(algorithm(), problem, inputs, world);
      double slope = 0;
      for (const Pair& pair : kPairs) {
        ASSERT_EQ((result.*pair.gradient).absent(), (inputs.*pair.input).absent());
        if (!(inputs.*pair.input).absent())
          slope += dot(result.*pair.gradient, direction.*pair.input);
      }
      const double difference =
          (8 * (loss(kStep) - loss(-kStep)) - (loss(2 * kStep) - loss(-2 * kStep))) / (12 * kStep);
      EXPECT_NEAR(slope, difference, kLimit * std::max(1.0, std::abs(difference)))
          << "P=" << world.size << " seed " << seed << ": " << describe(problem);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Gradient, testing::ValuesIn(subjects()), subject_of);

}  // namespace
}  // namespace sp::test
