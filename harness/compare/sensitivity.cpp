// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/sensitivity.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "harness/compare/key_share.hpp"
#include "harness/generate/values.hpp"
#include "reference/evaluate.hpp"
#include "reference/linear_attention.hpp"

namespace sp {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int kMostHalvings = 40;

using Field = HostTensor Outputs::*;
class Planter {
 public:
  Planter(const Problem& problem, const Inputs& inputs, Operands operands, const Sampling& sampling)
      : problem_(problem),
        inputs_(inputs),
        operands_(operands),
        oracle_(problem, inputs, false, operands, sampling),
        tokens_(oracle_.tokens()) {
    if (!tokens_.empty()) return;
    tokens_.resize(static_cast<std::size_t>(problem.shape.N));
    std::iota(tokens_.begin(), tokens_.end(), 0);
  }

  bool sampled() const { return oracle_.sampled(); }

  std::vector<Sensitivity> all() const {
    KeyShare of_keys;
    const Outputs shared = shares(of_keys);
    std::vector<Sensitivity> found;
    for (const auto& [name, field] : kSoftmaxResults) {
      const HostTensor& exact = oracle_.exact().*field;
      if (exact.absent()) continue;
      const auto [begin, end] = middle_row(exact, field == &Outputs::lse);
      const std::int64_t largest = largest_in(exact, begin, end);
      found.push_back(
          {name,
           smallest(field,
                    [&, b = begin, e = end](HostTensor& x, double eps) { scale(x, b, e, eps); }),
           smallest(field, [&](HostTensor& x, double eps) { scale(x, largest, largest + 1, eps); }),
           smallest(field, add_noise), part(field, shared.*field, of_keys),
           hop(field, shared.*field)});
    }
    return found;
  }

 private:
  using Plant = std::function<void(HostTensor&, double)>;

  // Halves eps from 1 on as long as the defect is refused.
  double smallest(Field field, const Plant& plant) const {
    double refused = std::numeric_limits<double>::infinity();
    for (double eps = 1; eps > std::ldexp(1.0, -kMostHalvings); eps /= 2) {
      HostTensor x = oracle_.exact().*field;
      plant(x, eps);
      Outputs rows;
      rows.*field =
          x.cast(field == &Outputs::lse ? accumulator_of(problem_.dtype) : problem_.dtype);
      if (oracle_.judge_rows(rows, 1).passed()) break;
      refused = eps;
    }
    return refused;
  }

  // [begin, end) of the middle token's first head; of lse, the one element.
  std::pair<std::int64_t, std::int64_t> middle_row(const HostTensor& x, bool is_lse) const {
    const auto middle = std::ranges::lower_bound(tokens_, problem_.shape.N / 2) - tokens_.begin();
    if (is_lse) return {middle, middle + 1};
    const std::int64_t row = x.extent(2) * x.extent(3);
    return {middle * row, middle * row + x.extent(3)};
  }

  static std::int64_t largest_in(const HostTensor& x, std::int64_t begin, std::int64_t end) {
    std::int64_t largest = begin;
    for (std::int64_t i = begin; i < end; ++i)
      if (std::fabs(x.at(i)) > std::fabs(x.at(largest))) largest = i;
    return largest;
  }

  static void scale(HostTensor& x, std::int64_t begin, std::int64_t end, double eps) {
    for (std::int64_t i = begin; i < end; ++i) x.set(i, x.at(i) * (1 + eps));
  }

  static void add_noise(HostTensor& x, double eps) {
    double squares = 0;
    for (const double element : x.as<double>()) squares += element * element;
    const double size = eps * std::sqrt(squares / static_cast<double>(x.size()));
    Stream random(1);
    for (double& element : x.as<double>()) element += size * random.normal();
  }

  // A part of a tensor's sum, scaled.
  double part(Field field, const HostTensor& share, const KeyShare& of_keys) const {
    if (field == &Outputs::lse) {
      return smallest(field, [](HostTensor& x, double eps) {
        for (double& element : x.as<double>()) element += eps;
      });
    }
    if (share.absent()) return kNone;
    if (field == &Outputs::out && problem_.family() == Family::kSoftmax) {
      const Shape& s = problem_.shape;
      const std::int64_t rows = std::ssize(tokens_);
      return smallest(field, [&](HostTensor& out, double eps) {
        for (std::int64_t i = 0; i < out.size(); ++i) {
          const std::int64_t h = i / s.E % s.H, row = i / s.E / s.H % rows,
                             b = i / s.E / s.H / rows;
          const double weight =
              of_keys.weight[static_cast<std::size_t>((b * s.H + h) * rows + row)];
          out.set(i, (out.at(i) + eps * share.at(i)) / (1 + eps * weight));
        }
      });
    }
    return smallest(field, [&](HostTensor& x, double eps) {
      for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, x.at(i) + eps * share.at(i));
    });
  }

  // The same part, rounded to a type of unit roundoff eps before it is added.
  double hop(Field field, const HostTensor& share) const {
    if (share.absent() || field == &Outputs::lse) return kNone;
    return smallest(field, [&](HostTensor& x, double eps) {
      Stream random(2);
      for (std::int64_t i = 0; i < x.size(); ++i)
        x.set(i, x.at(i) + eps * (2 * random.uniform() - 1) * share.at(i));
    });
  }

  // Of out and d_q what the first quarter of the keys gives, of d_k and d_v what the last quarter of the queries does.
  Outputs shares(KeyShare& of_keys) const {
    const Shape& s = problem_.shape;
    const std::int64_t quarter = std::max<std::int64_t>(1, s.N / 4);
    // Gradients are linear in d_out, whose other rows are zero here.
    Outputs shares =
        evaluated([&](Inputs& inputs) { keep_tokens(inputs.d_out, s.N - quarter, s.N); });
    shares.lse = {};
    if (problem_.family() == Family::kSoftmax) {
      of_keys = share_of_first_keys(problem_, inputs_, oracle_.exact(), tokens_, quarter);
      shares.out = HostTensor::from_doubles(DType::kF64, oracle_.exact().out.shape(), of_keys.out);
      shares.d_q = HostTensor::from_doubles(DType::kF64, oracle_.exact().d_q.shape(), of_keys.d_q);
      return shares;
    }
    if (is_normalised(*problem_.module)) {
      shares.out = shares.d_q = {};
      return shares;
    }
    // Linear attention is linear in v, too.
    const Outputs of_values = evaluated([&](Inputs& inputs) { keep_tokens(inputs.v, 0, quarter); });
    shares.out = of_values.out;
    shares.d_q = of_values.d_q;
    return shares;
  }

  template <class Change>
  Outputs evaluated(Change&& change) const {
    Inputs inputs = inputs_;
    change(inputs);
    if (problem_.family() == Family::kSoftmax)
      return softmax_truth(problem_, inputs, tokens_, operands_).exact;
    return oracle_.sampled() ? reference::linear_attention_rows(problem_, inputs, tokens_)
                             : reference::evaluate(problem_, inputs);
  }

  // All others become zero.
  static void keep_tokens(HostTensor& x, std::int64_t begin, std::int64_t end) {
    const std::int64_t row = x.extent(2) * x.extent(3);
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const std::int64_t token = i / row % x.extent(1);
      if (token < begin || token >= end) x.set(i, 0);
    }
  }

  const Problem& problem_;
  const Inputs& inputs_;
  const Operands operands_;
  const Oracle oracle_;
  std::vector<std::int64_t> tokens_;
};

}  // namespace

std::vector<Sensitivity> sensitivity(const Problem& problem, const Inputs& inputs,
                                     Operands operands, const Sampling& sampling, bool* sampled) {
  const Planter planter(problem, inputs, operands, sampling);
  if (sampled != nullptr) *sampled = planter.sampled();
  return planter.all();
}

}  // namespace sp
