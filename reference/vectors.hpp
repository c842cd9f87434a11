// Vectors of doubles: tensors widened exactly, and the two loops that every equation is made of.
//
// Sums run from left to right, so that equal inputs give equal bits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "reference/problem/error.hpp"
#include "reference/problem/host_tensor.hpp"

namespace sp::reference {

using Index = std::int64_t;
using Values = std::vector<double>;

inline Values doubles(const HostTensor& tensor, const std::vector<Index>& shape) {
  SP_CHECK(tensor.shape() == shape, "a tensor has shape " + describe_shape(tensor.shape()) +
                                        ", the problem says " + describe_shape(shape));
  Values values;
  values.reserve(static_cast<std::size_t>(tensor.size()));
  visit_dtype(tensor.dtype(), [&]<class T>() {
    for (const T element : tensor.as<T>()) values.push_back(static_cast<double>(widen(element)));
  });
  return values;
}

inline double dot(const double* a, const double* b, Index size) {
  double sum = 0;
  for (Index c = 0; c < size; ++c) sum += a[c] * b[c];
  return sum;
}

inline void add_scaled(double* sum, double factor, const double* a, Index size) {
  for (Index c = 0; c < size; ++c) sum[c] += factor * a[c];
}

}  // namespace sp::reference
