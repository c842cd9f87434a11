// A dense row-major tensor in host memory: how problems and results are held and exchanged.
//
// Shapes follow reference/README.md: q [B, N, H, D], k [B, N, G, D], v [B, N, G, E], lse [B, H, N].
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "reference/problem/dtype.hpp"

namespace sp {

class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, std::vector<std::int64_t> shape);  // zero-filled
  static HostTensor from_doubles(DType dtype, std::vector<std::int64_t> shape,
                                 std::span<const double> values);  // rounds to dtype

  DType dtype() const { return dtype_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t extent(std::size_t axis) const { return shape_[axis]; }
  std::int64_t size() const { return size_; }
  // True where the tensor is not part of the problem (no cotangent, no projection); a tensor with a
  // zero extent is present.
  bool absent() const { return shape_.empty(); }

  std::byte* data() { return bytes_.data(); }
  const std::byte* data() const { return bytes_.data(); }
  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(bytes_.data()), static_cast<std::size_t>(size_)};
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(bytes_.data()), static_cast<std::size_t>(size_)};
  }

  double at(std::int64_t flat) const;  // the element, widened exactly
  void set(std::int64_t flat, double value);
  HostTensor cast(DType dtype) const;

 private:
  DType dtype_ = DType::kF32;
  std::vector<std::int64_t> shape_;
  std::int64_t size_ = 0;
  std::vector<std::byte> bytes_;
};

std::string describe_shape(std::span<const std::int64_t> shape);  // "[2, 128, 8, 64]"

}  // namespace sp
