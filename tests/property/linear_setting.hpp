// Random problems of linear attention and stacks for tests that need no reference.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "optimized/kernels/linear.hpp"
#include "tests/property/everyone.hpp"
#include "tests/property/tensors.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {

inline bool of_linear(const Subject& s) { return s.algorithm->family == Family::kLinear; }
inline bool of_states(const Subject& s) { return s.module.has_value(); }  // stacks too
inline bool of_constant_decay(const Subject& s) {
  return of_linear(s) && decay_of(*s.module) != Decay::kPerChannel && !is_normalised(*s.module);
}

inline Inputs inputs_for(const Problem& problem, std::uint64_t seed,
                         Values values = Values::kNormal, Decays decays = Decays::kRule) {
  return make_inputs({problem, {}, values, decays, seed});
}

struct LinearSetting {
  const Algorithm& algorithm;
  World world;
  Draw& draw;
  std::uint64_t seed;
  Problem problem;
  Inputs inputs;

  Outputs run() const { return test::run(algorithm, problem, inputs, world); }
};

// Any mask that the subject serves on its own.
inline Mask mask_for(Draw& draw, const Subject& subject, const Problem& problem) {
  Problem masked = problem;
  masked.mask.causal = draw.coin() || subject.algorithm->family == Family::kHybrid;
  if (draw.coin()) masked.mask.segment_ids = segment_runs(draw, problem.shape);
  if (subject.module == Module::kBased && masked.mask.causal && draw.coin())
    masked.mask.window = draw.integer(1, problem.shape.N + 1);
  if (!subject.algorithm->supports(masked, {2})) masked.mask.window = 0;
  if (!subject.algorithm->supports(masked, {2})) masked.mask.causal = true;
  return masked.mask;
}

class LinearSettings : public EachSubject {
 protected:
  // f(setting) on random problems in every world: in f64, so that whatever is not rounding is seen.
  template <class F>
  void for_all_settings(F&& f, DType dtype = DType::kF64) {
    const std::vector<World> worlds{{1, 1}, {2, 1, 2}, {3, 3}, {4, 2, 64}, {7, 1}};
    constexpr std::uint64_t kSeeds = 3;
    for (const World& world : worlds) {
      for (std::uint64_t n = 0; n < kSeeds; ++n) {
        const std::uint64_t seed = n * 100 + static_cast<std::uint64_t>(world.size);
        Draw draw(seed);
        Shape shape = draw.shape(40);
        shape.N += n == 0 ? 2 * kLinearChunk : 2;  // one in three has several sub-chunks
        Problem problem = problem_for(GetParam(), shape);
        problem.dtype = dtype;
        // Rows whose weights nearly cancel would magnify rounding; epsilon keeps them away from 0.
        if (is_normalised(*problem.module)) problem.epsilon = 1;
        problem.mask = mask_for(draw, GetParam(), problem);
        LinearSetting setting{
            algorithm(), world,   draw,
            seed,        problem, inputs_for(problem, seed, Values::kNormal, Decays::kMixed)};
        SCOPED_TRACE("P=" + std::to_string(world.size) + " seed " + std::to_string(seed) + ": " +
                     describe(problem));
        f(setting);
        if (HasFatalFailure()) return;
      }
    }
  }
};

}  // namespace sp::test
