// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/compare.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double rounded(double value, DType type) {
  return visit_dtype(
      type, [&]<class T>() -> double { return static_cast<double>(widen(narrow<T>(value))); });
}

struct Judgement {
  double error, limit, ratio;
};

// Written so that NaN anywhere fails: only a comparison that holds passes.
Judgement judge(double value, double expected, const Limit& limit, DType storage) {
  if (limit.exact) {
    const double wanted = rounded(expected, storage);
    return {std::fabs(value - wanted), 0, value == wanted ? 0 : kInfinity};
  }
  if (!std::isfinite(value) || !std::isfinite(expected)) {
    return value == expected ? Judgement{0, 0, 0} : Judgement{kInfinity, 0, kInfinity};
  }
  const double error = std::fabs(value - expected);
  const double allowed = limit.relative * std::fabs(expected) + limit.absolute;
  if (error == 0 && allowed >= 0) return {0, allowed, 0};
  const double ratio = error / allowed;
  return {error, allowed, ratio >= 0 ? ratio : kInfinity};
}

std::vector<std::int64_t> unravel(std::int64_t flat, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return index;
}

TensorVerdict compare_tensor(const char* name, const HostTensor& result, const HostTensor& exact,
                             const Limit& limit, DType storage) {
  if (result.shape() != exact.shape()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("tensor {} has shape {}, expected {}", name,
                            describe_shape(result.shape()), describe_shape(exact.shape())));
  }
  TensorVerdict verdict;
  verdict.name = name;
  verdict.elements = result.size();
  for (std::int64_t i = 0; i < result.size(); ++i) {
    const double value = result.at(i), expected = exact.at(i);
    const Judgement judgement = judge(value, expected, limit, storage);
    if (!(judgement.ratio <= 1)) ++verdict.failures;
    if (verdict.worst >= 0 && !(judgement.ratio > verdict.ratio)) continue;
    verdict.worst = i;
    verdict.value = value;
    verdict.expected = expected;
    verdict.error = judgement.error;
    verdict.limit = judgement.limit;
    verdict.ratio = judgement.ratio;
  }
  if (verdict.worst >= 0) verdict.index = unravel(verdict.worst, result.shape());
  return verdict;
}

}  // namespace

bool Verdict::passed() const {
  for (const TensorVerdict& tensor : tensors) {
    if (tensor.failures != 0) return false;
  }
  return true;
}

const TensorVerdict* Verdict::worst() const {
  const TensorVerdict* worst = nullptr;
  for (const TensorVerdict& tensor : tensors) {
    if (tensor.worst >= 0 && (worst == nullptr || tensor.ratio > worst->ratio)) worst = &tensor;
  }
  return worst;
}

Verdict compare(const Outputs& result, const Outputs& exact, const Limits& limits, DType storage) {
  Verdict verdict;
  const auto add = [&](const char* name, const HostTensor& tensor, const HostTensor& wanted,
                       const Limit& limit) {
    if (!tensor.absent())
      verdict.tensors.push_back(compare_tensor(name, tensor, wanted, limit, storage));
  };
  add("out", result.out, exact.out, limits.out);
  add("lse", result.lse, exact.lse, limits.lse);
  add("d_q", result.d_q, exact.d_q, limits.d_q);
  add("d_k", result.d_k, exact.d_k, limits.d_k);
  add("d_v", result.d_v, exact.d_v, limits.d_v);
  add("d_projection_k", result.d_projection_k, exact.d_projection_k, limits.d_projection_k);
  add("d_projection_v", result.d_projection_v, exact.d_projection_v, limits.d_projection_v);
  return verdict;
}

std::string describe(const TensorVerdict& v) {
  return fmt::format(
      "{}{} is {:.9g}, expected {:.9g}: error {:.3g}, limit {:.3g}, {} of {} elements above",
      v.name, describe_shape(v.index), v.value, v.expected, v.error, v.limit, v.failures,
      v.elements);
}

}  // namespace sp
