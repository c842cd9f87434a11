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
Judgement judge(double value, double expected, const Limit& limit, std::int64_t element,
                DType storage) {
  if (limit.exact) {
    const double wanted = rounded(expected, storage);
    return {std::fabs(value - wanted), 0, value == wanted ? 0 : kInfinity};
  }
  if (!std::isfinite(value) || !std::isfinite(expected)) {
    return value == expected ? Judgement{0, 0, 0} : Judgement{kInfinity, 0, kInfinity};
  }
  const double error = std::fabs(value - expected);
  const double size = limit.sizes.absent() ? 0 : limit.per_size * limit.sizes.at(element);
  const double allowed = limit.relative * std::fabs(expected) + limit.absolute + size;
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
    const Judgement judgement = judge(value, expected, limit, i, storage);
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
  struct Field {
    const char* name;
    HostTensor Outputs::* tensor;
    Limit Limits::* limit;
  };
  constexpr Field kFields[] = {
      {"out", &Outputs::out, &Limits::out},
      {"lse", &Outputs::lse, &Limits::lse},
      {"d_q", &Outputs::d_q, &Limits::d_q},
      {"d_k", &Outputs::d_k, &Limits::d_k},
      {"d_v", &Outputs::d_v, &Limits::d_v},
      {"d_projection_k", &Outputs::d_projection_k, &Limits::d_projection_k},
      {"d_projection_v", &Outputs::d_projection_v, &Limits::d_projection_v},
      {"d_log_decay", &Outputs::d_log_decay, &Limits::d_log_decay},
      {"d_gamma", &Outputs::d_gamma, &Limits::d_gamma},
      {"d_beta", &Outputs::d_beta, &Limits::d_beta},
  };
  Verdict verdict;
  for (const Field& field : kFields) {
    const HostTensor& tensor = result.*field.tensor;
    if (tensor.absent()) continue;
    if ((exact.*field.tensor).absent())
      throw Error(ErrorKind::kUsage,
                  fmt::format("tensor {} does not belong to this problem", field.name));
    verdict.tensors.push_back(
        compare_tensor(field.name, tensor, exact.*field.tensor, limits.*field.limit, storage));
  }
  return verdict;
}

std::string describe(const TensorVerdict& v) {
  return fmt::format(
      "{}{} is {:.9g}, expected {:.9g}: error {:.3g}, limit {:.3g}, {} of {} elements above",
      v.name, describe_shape(v.index), v.value, v.expected, v.error, v.limit, v.failures,
      v.elements);
}

}  // namespace sp
