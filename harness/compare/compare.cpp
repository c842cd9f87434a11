// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
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

Judgement judged(double error, double rounding, double rest) {
  const double limit = rounding + rest;
  if (error == 0 && limit >= 0) return {0, limit, 0, 0};
  const double ratio = error / limit;
  if (!(ratio >= 0)) return {error, limit, kInfinity, kInfinity};
  return {error, limit, ratio, error <= rounding ? 0 : (error - rounding) / rest};
}

// Written so that NaN anywhere fails: only a comparison that holds passes.
Judgement judge(double value, double expected, const Limit& limit, std::int64_t element,
                DType storage) {
  if (limit.exact) {
    const double wanted = rounded(expected, storage);
    const double ratio = value == wanted ? 0 : kInfinity;
    return {std::fabs(value - wanted), 0, ratio, ratio};
  }
  if (!std::isfinite(value) || !std::isfinite(expected)) {
    return value == expected ? Judgement{} : Judgement{kInfinity, 0, kInfinity, kInfinity};
  }
  return judged(std::fabs(value - expected), limit.rounding(expected),
                limit.per_size * limit.size(element));
}

// The 2-norms of a row or of a whole tensor; what is not finite is judged as an element.
struct Norms {
  double error2 = 0, expected2 = 0, size2 = 0, count = 0;
  void add(double value, double expected, double size) {
    if (!std::isfinite(value) || !std::isfinite(expected)) return;
    error2 += (value - expected) * (value - expected);
    expected2 += expected * expected;
    size2 += size * size;
    ++count;
  }
  void add(const Norms& row) {
    error2 += row.error2, expected2 += row.expected2, size2 += row.size2, count += row.count;
  }
  // factor: of the norm of the sizes, where that of an element is the limit's own.
  Judgement judge(const Limit& limit, double factor) const {
    const double rest = limit.per_size / factor_of_element() * factor * std::sqrt(size2);
    return judged(std::sqrt(error2),
                  limit.relative * std::sqrt(expected2) + std::sqrt(count) * limit.absolute,
                  count == 0 ? 0 : rest);
  }
};

std::vector<std::int64_t> unravel(std::int64_t flat, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return index;
}

void judge_norms(TensorVerdict& verdict, const HostTensor& result, const HostTensor& exact,
                 const Limit& limit) {
  Norms all;
  const std::int64_t width = result.shape().back();
  for (std::int64_t begin = 0; begin < result.size(); begin += width) {
    Norms row;
    for (std::int64_t i = begin; i < begin + width; ++i)
      row.add(result.at(i), exact.at(i), limit.size(i));
    all.add(row);
    const Judgement judgement = row.judge(limit, factor_of_row(row.count));
    ++verdict.rows;
    verdict.beyond = std::max(verdict.beyond, judgement.beyond);
    if (!(judgement.ratio <= 1)) {
      ++verdict.row_failures;
      if (verdict.name != "lse") verdict.wrong.push_back(begin / width);
    }
    if (!verdict.row_index.empty() && !(judgement.ratio > verdict.row.ratio)) continue;
    verdict.row = judgement;
    verdict.row_size = std::sqrt(row.expected2);
    verdict.row_index = unravel(begin, result.shape());
    verdict.row_index.pop_back();
  }
  const auto rows = static_cast<double>(verdict.rows);
  verdict.whole = all.judge(limit, factor_of_rows(rows, all.count / rows));
  verdict.beyond = std::max(verdict.beyond, verdict.whole.beyond);
  verdict.whole_size = std::sqrt(all.expected2);
}

// Whether half of the right tensor would be refused, which zeros and other wrong tensors are farther from. One that
// vanishes, up to the rounding of the double side, is decided by being there.
bool decides(const HostTensor& exact, const Limit& limit, double w) {
  if (limit.exact) return true;
  constexpr double kVanishing = 64 * 0x1p-53;
  Norms all;
  for (std::int64_t i = 0; i < exact.size(); ++i) {
    const double x = exact.at(i), size = limit.size(i);
    if (!std::isfinite(x)) continue;
    if (std::fabs(x) / 2 > limit.rounding(x) + limit.per_size * size) return true;
    all.add(x / 2, x, size);
  }
  if (limit.independent) {
    TensorVerdict halved;
    HostTensor half = exact;
    for (std::int64_t i = 0; i < half.size(); ++i)
      if (std::isfinite(half.at(i))) half.set(i, half.at(i) / 2);
    judge_norms(halved, half, exact, limit);
    if (halved.row_failures > 0 || !(halved.whole.ratio <= 1)) return true;
  }
  const double sizes = limit.per_size / w * std::sqrt(all.size2);  // of the terms
  return std::sqrt(all.expected2) <= kVanishing * sizes;
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
    if (!(judgement.ratio <= 1)) {
      ++verdict.failures;
      const std::int64_t row = verdict.name == "lse" ? i : i / result.shape().back();
      if (verdict.wrong.empty() || verdict.wrong.back() != row) verdict.wrong.push_back(row);
    }
    verdict.beyond = std::max(verdict.beyond, judgement.beyond);
    if (verdict.worst >= 0 && !(judgement.ratio > verdict.element.ratio)) continue;
    verdict.worst = i;
    verdict.value = value;
    verdict.expected = expected;
    verdict.element = judgement;
  }
  if (verdict.worst >= 0) verdict.index = unravel(verdict.worst, result.shape());
  if (limit.independent && !limit.exact) judge_norms(verdict, result, exact, limit);
  std::ranges::sort(verdict.wrong);
  verdict.wrong.erase(std::ranges::unique(verdict.wrong).begin(), verdict.wrong.end());
  verdict.decided = decides(exact, limit, unit_roundoff(accumulator_of(storage)));
  return verdict;
}

}  // namespace

Judgement TensorVerdict::highest() const {
  return std::max({element, row, whole},
                  [](const Judgement& a, const Judgement& b) { return a.ratio < b.ratio; });
}

bool Verdict::decided() const {
  return std::ranges::all_of(tensors, [](const TensorVerdict& tensor) { return tensor.decided; });
}

bool Verdict::passed() const {
  return std::ranges::all_of(tensors, [](const TensorVerdict& tensor) { return tensor.passed(); });
}

const TensorVerdict* Verdict::worst() const {
  const TensorVerdict* worst = nullptr;
  for (const TensorVerdict& tensor : tensors) {
    if (tensor.worst >= 0 && (worst == nullptr || tensor.highest().ratio > worst->highest().ratio))
      worst = &tensor;
  }
  return worst;
}

Verdict compare(const Outputs& result, const Outputs& exact, const Limits& limits, DType storage) {
  Verdict verdict;
  for (const ResultField& field : kAllResults) {
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
  if (v.failures == 0 && v.row_failures > 0) {
    return fmt::format(
        "{}{}, a row of norm {:.3g}: error {:.3g}, limit {:.3g}, {} of {} rows above", v.name,
        describe_shape(v.row_index), v.row_size, v.row.error, v.row.limit, v.row_failures, v.rows);
  }
  if (v.failures == 0 && !(v.whole.ratio <= 1)) {
    return fmt::format("{} as a whole, of norm {:.3g}: error {:.3g}, limit {:.3g}", v.name,
                       v.whole_size, v.whole.error, v.whole.limit);
  }
  return fmt::format(
      "{}{} is {:.9g}, expected {:.9g}: error {:.3g}, limit {:.3g}, {} of {} elements above",
      v.name, describe_shape(v.index), v.value, v.expected, v.element.error, v.element.limit,
      v.failures, v.elements);
}

}  // namespace sp
