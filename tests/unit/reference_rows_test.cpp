// The second oracle: sampled rows have the bits of the full result; nothing is lost when empty.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "reference/attention.hpp"
#include "reference/problem/error.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kF64};

std::vector<std::int64_t> sample(std::uint64_t seed, std::int64_t N) {
  Draw draw(seed);
  std::vector<std::int64_t> tokens;  // any order, repetitions allowed, possibly none
  for (std::int64_t n = draw.integer(0, 6); n > 0; --n) tokens.push_back(draw.integer(0, N - 1));
  return tokens;
}

TEST(ReferenceRows, HaveTheBitsOfTheFullResultForAnyProblem) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Case c = any_case(seed, kTypes[seed % 4]);
    SCOPED_TRACE(name(c, seed));
    const std::vector<std::int64_t> tokens = sample(seed, c.problem.shape.N);
    const Outputs full = reference::attention(c.problem, c.inputs);
    const Outputs rows = reference::attention_rows(c.problem, c.inputs, tokens);
    ASSERT_TRUE(same_bits(rows.out, take(full.out, 1, tokens)));
    ASSERT_TRUE(same_bits(rows.lse, take(full.lse, 2, tokens)));
    ASSERT_TRUE(same_bits(rows.d_q, take(full.d_q, 1, tokens)));
    ASSERT_TRUE(rows.d_k.absent() && rows.d_v.absent());

    const Outputs keys =
        reference::attention_key_rows(c.problem, c.inputs, full.out, full.lse, tokens);
    ASSERT_TRUE(same_bits(keys.d_k, take(full.d_k, 1, tokens)));
    ASSERT_TRUE(same_bits(keys.d_v, take(full.d_v, 1, tokens)));
    ASSERT_EQ(keys.d_projection_k.absent(), c.problem.projected == 0);
    if (c.problem.projected == 0) continue;
    ASSERT_TRUE(same_bits(keys.d_projection_k, take(full.d_projection_k, 0, tokens)));
    ASSERT_TRUE(same_bits(keys.d_projection_v, take(full.d_projection_v, 0, tokens)));
  }
}

TEST(ReferenceRows, RefuseTokensThatDoNotExist) {
  const Case c = any_case(1, DType::kF32);
  const std::int64_t N = c.problem.shape.N;
  const Outputs full = reference::attention(c.problem, c.inputs);
  for (const std::int64_t token : {std::int64_t{-1}, N}) {
    const std::vector<std::int64_t> tokens{0, token};
    try {
      reference::attention_rows(c.problem, c.inputs, tokens);
      FAIL() << "token " << token << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find(std::to_string(token)), std::string::npos);
    }
    EXPECT_THROW(reference::attention_key_rows(c.problem, c.inputs, full.out, full.lse, tokens),
                 Error);
  }
}

TEST(Reference, WidensEveryStorageTypeExactly) {
  for (const DType dtype : kTypes) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      Case c = any_case(seed, dtype);
      SCOPED_TRACE(name(c, seed));
      const Outputs stored = reference::attention(c.problem, c.inputs);
      c.problem.dtype = DType::kF64;
      for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out,
                           &Inputs::projection_k, &Inputs::projection_v})
        c.inputs.*x = (c.inputs.*x).cast(DType::kF64);
      ASSERT_TRUE(same_bits(stored, reference::attention(c.problem, c.inputs)));
    }
  }
}

TEST(Reference, WithoutCotangentReturnsTheSameForwardAndNoGradient) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Case c = any_case(seed, DType::kF32);
    SCOPED_TRACE(name(c, seed));
    const Outputs both = reference::attention(c.problem, c.inputs);
    c.inputs.d_out = {};
    const Outputs forward = reference::attention(c.problem, c.inputs);
    ASSERT_TRUE(same_bits(forward.out, both.out) && same_bits(forward.lse, both.lse));
    ASSERT_TRUE(forward.d_q.absent() && forward.d_k.absent() && forward.d_v.absent());
    ASSERT_TRUE(forward.d_projection_k.absent() && forward.d_projection_v.absent());
    const std::vector<std::int64_t> none;
    EXPECT_THROW(reference::attention_key_rows(c.problem, c.inputs, forward.out, forward.lse, none),
                 Error);
  }
}

TEST(Reference, EmptyProblemsGiveEmptyTensorsOfTheRightShape) {
  for (const std::int64_t projected : {0, 3}) {
    for (const auto& [B, N] : {std::pair<std::int64_t, std::int64_t>{2, 0}, {0, 5}, {0, 0}}) {
      Case c;
      c.problem.shape = {B, N, 4, 2, 3, 5};
      c.problem.projected = projected;
      c.inputs = Draw(0).inputs(c.problem);
      SCOPED_TRACE(name(c, 0));
      ASSERT_NO_THROW(validate(c.problem, c.inputs));
      const Outputs result = reference::attention(c.problem, c.inputs);
      using Extents = std::vector<std::int64_t>;
      EXPECT_EQ(result.out.shape(), (Extents{B, N, 4, 5}));
      EXPECT_EQ(result.lse.shape(), (Extents{B, 4, N}));
      EXPECT_EQ(result.d_q.shape(), (Extents{B, N, 4, 3}));
      EXPECT_EQ(result.d_k.shape(), (Extents{B, N, 2, 3}));
      EXPECT_EQ(result.d_v.shape(), (Extents{B, N, 2, 5}));
      if (projected == 0) continue;
      EXPECT_EQ(result.d_projection_k.shape(), (Extents{N, projected}));
      EXPECT_EQ(result.d_projection_v.shape(), (Extents{N, projected}));
      EXPECT_EQ(largest(result.d_projection_k), 0);  // an empty batch pulls at nothing
    }
  }
}

TEST(Reference, RefusesTensorsOfAnotherShape) {
  Case c = any_case(3, DType::kF32);
  c.inputs.k = HostTensor(DType::kF32, {1, 1, 1, 1});
  EXPECT_THROW(reference::attention(c.problem, c.inputs), Error);
}

}  // namespace
}  // namespace sp::test
