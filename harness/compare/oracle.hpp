// The truth about a case: the full double reference where O(N^2) is affordable, sampled rows of it
// where it is not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "harness/compare/compare.hpp"
#include "harness/compare/sample.hpp"

namespace sp {

class Oracle {
 public:
  // exact_case: the inputs are such that every result is known bit for bit.
  // operands: of the kernels that will be judged.
  Oracle(const Problem& problem, const Inputs& inputs, bool exact_case,
         Operands operands = Operands::kAccumulator, const Sampling& sampling = {});

  const Problem& problem() const { return problem_; }
  bool sampled() const { return !tokens_.empty(); }
  const std::vector<std::int64_t>& tokens() const { return tokens_; }  // sampled ones, in order

  // result: any subset of the tensors, in global token order. Index and worst element refer to the
  // whole tensors.
  Verdict judge(const Outputs& result, int roundings) const;
  // The same of results that hold the compared tokens only, like exact().
  Verdict judge_rows(const Outputs& rows, int roundings) const;
  const Outputs& exact() const { return exact_; }
  Outputs rows(const Outputs& result) const;  // of the compared tokens

 private:
  void prepare_linear(const Sampling& sampling);
  void prepare_terms(const Sampling& sampling);
  Verdict judge_sampled(const Outputs& result, int roundings) const;
  Verdict in_whole(Verdict verdict) const;
  Limits limits(int roundings) const;

  const Problem& problem_;
  const Inputs& inputs_;
  bool exact_case_;
  Operands operands_;
  std::vector<std::int64_t> tokens_;
  Outputs exact_;
  SoftmaxTruth softmax_;  // softmax families
  Outputs
      sizes_;  // linear attention: linear_sizes.hpp, linear_terms.hpp; hybrid stacks: stack_noise.hpp
  std::optional<SoftmaxTruth> window_;  // of Based
};

// Softmax attention, and linear attention without a normaliser; of others all tokens are compared.
bool can_be_sampled(const Problem& problem);
// How long the whole truth about such a problem is thought to take on this machine, by the speed of a small one;
// 0, without measuring, where it takes a moment.
double seconds_of_truth(const Problem& problem, bool backward);

}  // namespace sp
