// The witness of a run finds nothing in right ones, and in broken ones the kernel or message that is broken.
// SPDX-License-Identifier: Apache-2.0
#include <numbers>

#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"
#include "harness/run/verify.hpp"
#include "harness/witness/first_wrong.hpp"
#include "reference/evaluate.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

#ifdef SP_SANITIZED
constexpr std::uint64_t kCases = 2;
#else
constexpr std::uint64_t kCases = 8;
#endif

std::string first_wrong_of(const Algorithm& algorithm, const sp::Case& drawn) {
  const Inputs inputs = make_inputs(drawn);
  const Outputs exact = reference::evaluate(drawn.problem, inputs);
  return first_wrong(threads(), {}, algorithm, drawn.problem, inputs, drawn.world, &exact);
}

class Witnesses : public EachSubject {};

TEST_P(Witnesses, FindNothingInRightRuns) {
  Pins pins;
  pins.module = GetParam().module;
  pins.longest = 0;
  std::uint64_t served = 0;
  for (std::uint64_t index = 0; served < kCases && index < 20 * kCases; ++index) {
    const sp::Case drawn = drawn_case(pins, algorithm().family, 5, index);
    if (!algorithm().supports(drawn.problem, drawn.world)) continue;
    ++served;
    EXPECT_EQ(first_wrong_of(algorithm(), drawn), "") << describe(drawn);
  }
  EXPECT_EQ(served, kCases);
}

INSTANTIATE_TEST_SUITE_P(Registry, Witnesses, testing::ValuesIn(subjects()), subject_of);

// A mutant, one of its algorithms, and what must be said of it.
struct Culprit {
  const char *mutant, *algorithm, *said;
};
constexpr Culprit kCulprits[] = {
    {"carry_in_storage", "ring/zigzag", "kernel merge gives out"},
    {"partial_in_storage", "ring/striped", "kernel attention gives out"},
    {"lse_in_storage", "token_ring/zigzag", "kernel attention gives lse"},
    {"gradient_carry_in_storage", "ring/contiguous", "kernel add gives target"},
    {"merge_keeps_lse", "ring/zigzag", "kernel merge gives lse"},
    {"backward_stale_keys", "ring/zigzag", "kernel attention_backward gives d_q"},
    {"segments_ignored_across_ranks", "ring/zigzag", "kernel attention gives"},
    {"rsa_gradient_divided", "rsa", "kernel scores_softmax_backward gives d_scores"},
    {"projection_gradient_lost", "rsa_linformer", "kernel project_backward gives d_projection"},
    {"own_keys_again", "ring/contiguous", "message k of step 1 from rank"},
    {"homing_hop_missing", "ring/contiguous", "message d_k of step"},
    {"delta_stale", "token_ring/zigzag", "message delta of step"},
    {"not_summed", "rsa", "summed over all ranks"},
    {"pieces_rotated", "allgather", "message k of step 0 from rank"},
    {"chunk_decay_forgotten", "lasp2", "kernel linear_accumulate gives state"},
    {"gather_reversed", "lasp2", "message state of step"},
    {"state_passed_on_unchanged", "lasp1", "message state of step"},
    {"halo_gradient_lost", "lasp2", "kernel add gives target"},
};

TEST(Witness, NamesWhatIsBroken) {
  const std::vector<Mutant> mutants = all_mutants();
  for (const Culprit& culprit : kCulprits) {
    auto mutant = *std::ranges::find(mutants, std::string_view(culprit.mutant),
                                     [](const Mutant& m) { return std::string_view(m.id); });
    mutant.algorithms = {culprit.algorithm};
    const MutantVerdict verdict = hunt(threads(), {}, mutant, 400, 20, true).front();
    EXPECT_NE(verdict.first.find(culprit.said), std::string::npos)
        << culprit.mutant << " of " << culprit.algorithm << ": " << verdict.first;
  }
}

// ---- Algorithms whose kernels and messages all do what they are asked to ----------------------

sp::Case of_zigzag_ring() {
  Pins pins;
  pins.ranks = {4};
  pins.tokens = 40;
  pins.dtype = DType::kF32;
  pins.values = Values::kNormal;
  pins.segments = false;
  pins.window = 0;
  return drawn_case(pins, Family::kSoftmax, 1, 1);
}

const Algorithm& zigzag_ring() { return *find_algorithm("ring/zigzag"); }

TEST(Witness, NamesTokensThatAreElsewhere) {
  Algorithm wrong = zigzag_ring();
  wrong.forward = [](Context& ctx, const Shards& in) {
    Shards mistaken = in;
    mistaken.layout = Layout(Sharding::kContiguous, in.layout.size(), in.layout.ranks());
    return zigzag_ring().forward(ctx, mistaken);
  };
  const std::string said = first_wrong_of(wrong, of_zigzag_ring());
  EXPECT_NE(said.find("attention is given q whose row"), std::string::npos) << said;
}

TEST(Witness, NamesRowsThatAreNotComplete) {
  Algorithm wrong = zigzag_ring();
  wrong.backward = [](Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
    multiply(saved.lse, std::numbers::log2e);
    return zigzag_ring().backward(ctx, in, saved, d_out);
  };
  const std::string said = first_wrong_of(wrong, of_zigzag_ring());
  EXPECT_NE(said.find("attention_backward is given the log-sum-exp of token"), std::string::npos)
      << said;
}

TEST(Witness, NamesADeltaOfOtherRows) {
  Algorithm wrong = zigzag_ring();
  wrong.backward = [](Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
    multiply(saved.out, 1.25);
    return zigzag_ring().backward(ctx, in, saved, d_out);
  };
  const std::string said = first_wrong_of(wrong, of_zigzag_ring());
  EXPECT_NE(said.find("attention_backward is given the delta of token"), std::string::npos) << said;
}

}  // namespace
}  // namespace sp::test
