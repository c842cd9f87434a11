// A tensor of one rank: a typed, strided window into shared storage that the Memory allocated.
//
// Local shards are token-major, [n, B, H, D] with n the tokens of this rank, so that any run of
// tokens is one contiguous message and an all-gather concatenates along the sequence. Smaller
// tensors fill up with extents of 1: log-sum-exp [n, B, H, 1]. Copying a Tensor copies the window,
// never the data. The data may live on a device or nowhere (simulation): only kernels and
// communicators may look at it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "reference/problem/dtype.hpp"
#include "reference/problem/error.hpp"

namespace sp {

struct Storage {
  std::byte* data = nullptr;  // null where nothing is stored (simulation)
  std::int64_t bytes = 0;
  const char* name = "";  // for messages: which tensor this was allocated as
};

class Tensor {
 public:
  using Extents = std::array<std::int64_t, 4>;

  Tensor() = default;
  Tensor(std::shared_ptr<Storage> storage, DType dtype, Extents shape);  // row-major, offset 0

  bool defined() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Extents& shape() const { return shape_; }
  const Extents& strides() const { return strides_; }  // in elements
  std::int64_t extent(int axis) const { return shape_[static_cast<std::size_t>(axis)]; }
  std::int64_t stride(int axis) const { return strides_[static_cast<std::size_t>(axis)]; }
  std::int64_t elements() const { return shape_[0] * shape_[1] * shape_[2] * shape_[3]; }
  std::int64_t bytes() const { return elements() * static_cast<std::int64_t>(size_of(dtype_)); }
  const char* name() const { return defined() ? storage_->name : "undefined"; }
  bool contiguous() const;

  // The window [begin, end) along one axis; token rows are axis 0.
  Tensor slice(int axis, std::int64_t begin, std::int64_t end) const;
  Tensor rows(std::int64_t begin, std::int64_t end) const { return slice(0, begin, end); }

  // Address of the first element; null where nothing is stored.
  std::byte* data() const {
    if (!defined() || storage_->data == nullptr) return nullptr;
    return storage_->data + offset_ * static_cast<std::int64_t>(size_of(dtype_));
  }
  bool shares_storage(const Tensor& other) const { return storage_ == other.storage_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data());
  }

 private:
  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;  // in elements
  DType dtype_ = DType::kF32;
  Extents shape_{0, 0, 0, 0};
  Extents strides_{0, 0, 0, 0};
};

}  // namespace sp
