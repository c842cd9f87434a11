// Where the rows of one head lie in whole tensors, for loops over heads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "reference/problem/problem.hpp"

namespace sp {

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct HeadRows {
  Shape shape;
  std::int64_t query(std::int64_t b, std::int64_t n, std::int64_t h) const {
    return (b * shape.N + n) * shape.H + h;
  }
  std::int64_t key(std::int64_t b, std::int64_t n, std::int64_t h) const {
    return (b * shape.N + n) * shape.G + h / (shape.H / shape.G);
  }
};

inline HostTensor zeros_like(const HostTensor& tensor) {
  return tensor.absent() ? HostTensor() : HostTensor(DType::kF64, tensor.shape());
}

}  // namespace sp
