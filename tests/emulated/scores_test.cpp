// Score rows on the emulated GPU against the CPU's kernels: products bit for bit where sums are
// exact, softmax within the rounding of both.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "tests/emulated/product_cases.hpp"
#include "tests/unit/kernels_cases.hpp"
#ifdef SP_EMULATOR  // which the GPU's headers say
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::test {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Sizes {
  std::int64_t n, m, D, B = 1, H = 1, G = 1;
};
constexpr Sizes kSizes[] = {
    {0, 5, 3},
    {5, 0, 3},
    {1, 1, 1},
    {63, 64, 65},
    {64, 63, 1},
    {65, 100, 17},
    {129, 130, 64},
    {100, 65, 16, 2, 4},
    {20, 33, 7, 2, 6, 3},
    {3, 200, 100, 1, 2, 2},
};

class EmulatedScores : public BlockTest {
 protected:
  // The same operand on both machines.
  struct Pair {
    Tensor host, device;
  };
  Pair put_both(const Values& values, DType dtype, Placement placement) {
    return {put(values, dtype, placement), gpu_.put(values, dtype, placement)};
  }
  GpuFixture gpu_;
};

TEST_P(EmulatedScores, FollowTheCpuThroughAWholeBlock) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const PlainForward plain = plain_attention(operands.plain);
  const Tensor::Extents shape = plain.probabilities.shape;
  const double keys = static_cast<double>(c.k_tokens.count());

  const Pair s{poisoned(shape, DType::kF32), gpu_.poisoned(shape, DType::kF32, c.placement)};
  kernels_.scores(s.host, operands.q, operands.k, 0.37);
  gpu_.kernels().scores(s.device, gpu_.twin(operands.q, c.placement),
                        gpu_.twin(operands.k, c.placement), 0.37);
  const double largest =
      0.37 * static_cast<double>(c.D) * operands.plain.q.largest() * operands.plain.k.largest();
  const double score_error = 2 * static_cast<double>(c.D + 2) * kUnit * largest;
  expect_within(gpu_.take(s.device), take(s.host), score_error, "scores");

  Values scores = take(s.host);
  for (std::size_t i = 0; i < scores.data.size(); ++i) {
    if (std::isinf(plain.scores.data[i])) scores.data[i] = kNaN;  // hidden: need not be defined
  }
  const Pair p = put_both(scores, DType::kF32, c.placement);
  const Tensor::Extents row{shape[0], shape[1], shape[2], 1};
  const Pair lse{poisoned(row, DType::kF32), gpu_.poisoned(row, DType::kF32, c.placement)};
  MaskTerms mask = operands.mask;
  mask.segments = gpu_.twin(operands.mask.segments);
  kernels_.scores_softmax(p.host, lse.host, c.q_tokens, c.k_tokens, &operands.mask);
  gpu_.kernels().scores_softmax(p.device, lse.device, c.q_tokens, c.k_tokens, &mask);
  // Both round the shift, the exponential, a sum over the keys and the quotient or logarithm.
  const double error = 2 * (keys + 8 + plain.largest_score) * kUnit;
  expect_within(gpu_.take(lse.device), take(lse.host), error, "lse");
  const Values probabilities = take(p.host);
  expect_within(
      gpu_.take(p.device), probabilities,
      [&](std::size_t i) { return error * probabilities.data[i]; }, "probabilities");

  Values d_p = random(shape, DType::kF32);
  for (std::size_t i = 0; i < d_p.data.size(); ++i) {
    if (probabilities.data[i] == 0) d_p.data[i] = kNaN;
  }
  const Pair d_s = put_both(d_p, DType::kF32, c.placement);
  kernels_.scores_softmax_backward(d_s.host, p.host, 0.37);
  gpu_.kernels().scores_softmax_backward(d_s.device, gpu_.twin(p.host, c.placement), 0.37);
  expect_within(gpu_.take(d_s.device), take(d_s.host), 2 * (keys + 8) * kUnit * 2, "d_scores");
}

std::vector<BlockCase> gpu_cases() {
  std::vector<BlockCase> cases = block_cases();
  std::erase_if(cases, [](const BlockCase& c) { return c.dtype == DType::kF64; });
  // Rows that take a whole block of threads; the first query sees nothing.
  BlockCase c;
  c.name = "long_rows";
  c.B = c.H = 2;
  c.D = 3;
  c.q_tokens = Tokens({{0, 1, 1}, {700, 300, 4}});
  c.k_tokens = run(1, 1700);
  c.band = {true, 1200};
  cases.push_back(c);
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedScores, ::testing::ValuesIn(gpu_cases()),
                         [](const auto& tested) { return tested.param.name; });

using EmulatedScoreProducts = ProductTest;

TEST_P(EmulatedScoreProducts, EqualTheCpuForEverySize) {
  const auto [dtype, placement] = GetParam();
  for (const DType key_type : {dtype, DType::kF32}) {
    for (const Sizes& z : kSizes) {
      const Values a = whole_numbers({z.n, z.B, z.H, z.D}, 5);
      const Values b = whole_numbers({z.m, z.B, z.G, z.D}, 3);
      const Tensor::Extents shape{z.n, z.B, z.H, z.m};
      const Tensor host = put(Values(shape), DType::kF32);
      const Tensor device = gpu_.poisoned(shape, DType::kF32, placement);
      kernels_.scores(host, put(a, dtype), put(b, key_type), 0.5);
      gpu_.kernels().scores(device, gpu_.put(a, dtype, placement), gpu_.put(b, key_type, placement),
                            0.5);
      expect_bitwise(gpu_.take(device), take(host), "scores");
    }
    if (dtype == DType::kF32) break;
  }
}

TEST_P(EmulatedScoreProducts, AddAppliedRowsInBothDirections) {
  const auto [dtype, placement] = GetParam();
  for (const Sizes& z : kSizes) {
    const Values s = whole_numbers({z.n, z.B, z.H, z.m}, 5);
    const Values x = whole_numbers({z.m, z.B, z.G, z.D}, 3);
    const Values y = whole_numbers({z.n, z.B, z.H, z.D}, 4);
    const Tensor rows = put(s, DType::kF32), gpu_rows = gpu_.put(s, DType::kF32, placement);
    const Tensor out = put(Values(y.shape, 2), DType::kF32);
    const Tensor gpu_out = gpu_.put(Values(y.shape, 2), DType::kF32, placement);
    kernels_.scores_apply(out, rows, put(x, dtype));
    gpu_.kernels().scores_apply(gpu_out, gpu_rows, gpu_.put(x, dtype, placement));
    expect_bitwise(gpu_.take(gpu_out), take(out), "applied");

    const Tensor back = put(Values(x.shape, 3), DType::kF32);
    const Tensor gpu_back = gpu_.put(Values(x.shape, 3), DType::kF32, placement);
    kernels_.scores_apply_transposed(back, rows, put(y, dtype));
    gpu_.kernels().scores_apply_transposed(gpu_back, gpu_rows, gpu_.put(y, dtype, placement));
    expect_bitwise(gpu_.take(gpu_back), take(back), "transposed");
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedScoreProducts, every_type_and_placement(), name_of_case);

class EmulatedScoreRows : public KernelsTest {
 protected:
  GpuFixture gpu_;
};

TEST_F(EmulatedScoreRows, WithoutAMaskHideNothing) {
  const Tensor rows = gpu_.put(Values({5, 1, 1, 67}, 1e4), DType::kF32);
  const Tensor lse = gpu_.poisoned({5, 1, 1, 1}, DType::kF32);
  gpu_.kernels().scores_softmax(rows, lse, {}, {}, nullptr);
  expect_within(gpu_.take(rows), Values({5, 1, 1, 67}, 1.0 / 67), kUnit, "probabilities");
  expect_within(gpu_.take(lse), Values({5, 1, 1, 1}, 1e4 + std::log(67.0)), 1e4 * 2 * kUnit, "lse");
}

// Columns beside the written ones keep what they held: rings write score rows block by block.
TEST_F(EmulatedScoreRows, AreWrittenInColumnSlices) {
  const Values a = whole_numbers({70, 1, 2, 9}, 5), b = whole_numbers({66, 1, 1, 9}, 3);
  const Tensor rows = gpu_.put(Values({70, 1, 2, 150}, 8), DType::kF32);
  const Tensor host = put(Values({70, 1, 2, 150}, 8), DType::kF32);
  kernels_.scores(host.slice(3, 31, 97), put(a, DType::kF32), put(b, DType::kF32), 1);
  gpu_.kernels().scores(rows.slice(3, 31, 97), gpu_.put(a, DType::kF32), gpu_.put(b, DType::kF32),
                        1);
  expect_bitwise(gpu_.take(rows), take(host), "rows");
}

#ifdef SP_EMULATOR
// A 16-byte access of a warp takes four wavefronts, a 4-byte access one, if no two lanes that are
// served together meet in a bank.
TEST_F(EmulatedScoreRows, MeetNoBankTwice) {
  const Tensor a = gpu_.put(whole_numbers({128, 1, 1, 64}, 5), DType::kF32);
  const Tensor b = gpu_.put(whole_numbers({64, 1, 1, 64}, 3), DType::kF32);
  const Tensor rows = gpu_.put(Values({128, 1, 1, 64}), DType::kF32);
  const Tensor out = gpu_.put(Values({128, 1, 1, 64}), DType::kF32);
  const Tensor back = gpu_.put(Values({64, 1, 1, 64}), DType::kF32);
  emulator::take_counts();
  emulator::count_accesses(true);
  gpu_.kernels().scores(rows, a, b, 1);
  gpu_.kernels().scores_apply(out, rows, b);
  gpu_.kernels().scores_apply_transposed(back, rows, a);
  gpu_.take(back);
  emulator::count_accesses(false);
  // Per warp and slab: 48 reads of 16 bytes, and three quads written, in one access or in four.
  const std::int64_t warps = 8, wavefronts = 4 * 48 + 4 * 3;
  const std::map<std::string, std::int64_t> slabs{
      {"scores", 4}, {"scores_apply", 4}, {"scores_apply_transposed", 8}};
  std::size_t seen = 0;
  for (const emulator::KernelCounts& counts : emulator::take_counts()) {
    if (!slabs.contains(counts.kernel)) continue;
    EXPECT_EQ(counts.shared_wavefronts, slabs.at(counts.kernel) * warps * wavefronts)
        << counts.kernel;
    ++seen;
  }
  EXPECT_EQ(seen, slabs.size());
}
#endif

}  // namespace
}  // namespace sp::test
