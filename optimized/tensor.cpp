// SPDX-License-Identifier: Apache-2.0
#include "optimized/tensor.hpp"

namespace sp {

Tensor::Tensor(std::shared_ptr<Storage> storage, DType dtype, Extents shape)
    : storage_(std::move(storage)), dtype_(dtype), shape_(shape) {
  std::int64_t stride = 1;
  for (std::size_t axis = 4; axis-- > 0;) {
    strides_[axis] = stride;
    stride *= shape_[axis];
  }
}

bool Tensor::contiguous() const {
  if (elements() == 0) return true;
  std::int64_t stride = 1;
  for (std::size_t axis = 4; axis-- > 0;) {
    if (shape_[axis] != 1 && strides_[axis] != stride) return false;
    stride *= shape_[axis];
  }
  return true;
}

Tensor Tensor::slice(int axis, std::int64_t begin, std::int64_t end) const {
  const auto a = static_cast<std::size_t>(axis);
  SP_CHECK(0 <= begin && begin <= end && end <= shape_[a], "a slice leaves its tensor");
  Tensor window = *this;
  window.offset_ += begin * strides_[a];
  window.shape_[a] = end - begin;
  return window;
}

}  // namespace sp
