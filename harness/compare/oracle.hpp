// The truth about a case: the full double reference where O(N^2) is affordable, sampled rows of it
// where it is not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/compare/compare.hpp"
#include "harness/compare/naive.hpp"

namespace sp {

class Oracle {
 public:
  // exact_case: the inputs are such that every result is known bit for bit.
  // operands: of the kernels that will be judged.
  Oracle(const Problem& problem, const Inputs& inputs, bool exact_case,
         Operands operands = Operands::kAccumulator);

  bool sampled() const { return !tokens_.empty(); }
  const std::vector<std::int64_t>& tokens() const { return tokens_; }  // sampled ones, in order

  // result: any subset of the tensors, in global token order. Index and worst element refer to the
  // whole tensors.
  Verdict judge(const Outputs& result, int roundings) const;

 private:
  void prepare_linear();
  Verdict judge_sampled(const Outputs& result, int roundings) const;
  Verdict judge_sampled_linear(const Outputs& result) const;
  Verdict in_whole(Verdict verdict) const;
  Limits limits(int roundings) const;

  const Problem& problem_;
  const Inputs& inputs_;
  bool exact_case_;
  Operands operands_;
  std::vector<std::int64_t> tokens_;
  Outputs exact_;
  NaiveOutputs naive_;  // softmax families
  Outputs sizes_;       // linear attention: see linear_sizes.hpp; hybrid stacks: stack_noise.hpp
  Limits window_;       // of the window part of Based
};

// Above this many multiply-adds the reference is sampled: about 10 s of the double reference on one
// core.
constexpr double kMostReferenceWork = 4e9;
constexpr int kSampledTokens = 24;

}  // namespace sp
