// Arithmetic on whole tensors in tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "reference/problem/host_tensor.hpp"

namespace sp::test {

inline double dot(const HostTensor& a, const HostTensor& b) {
  double sum = 0;
  for (std::int64_t n = 0; n < a.size(); ++n) sum += a.at(n) * b.at(n);
  return sum;
}

// a x + b y
inline HostTensor combine(double a, const HostTensor& x, double b, const HostTensor& y) {
  HostTensor sum(x.dtype(), x.shape());
  for (std::int64_t n = 0; n < sum.size(); ++n) sum.set(n, a * x.at(n) + b * y.at(n));
  return sum;
}

// Row `token` of every batch element of x [B, N, ...] replaced by that of y.
inline void replace_token(HostTensor& x, const HostTensor& y, std::int64_t token) {
  const std::int64_t N = x.extent(1), row = x.extent(2) * x.extent(3);
  for (std::int64_t b = 0; b < x.extent(0); ++b)
    for (std::int64_t n = (b * N + token) * row; n < (b * N + token + 1) * row; ++n)
      x.set(n, y.at(n));
}

inline std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(end - begin));
  std::iota(numbers.begin(), numbers.end(), begin);
  return numbers;
}

}  // namespace sp::test
