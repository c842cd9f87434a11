// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/host_tensor.hpp"

#include <fmt/ranges.h>

#include "reference/problem/error.hpp"

namespace sp {

HostTensor::HostTensor(DType dtype, std::vector<std::int64_t> shape)
    : dtype_(dtype), shape_(std::move(shape)), size_(1) {
  for (const std::int64_t extent : shape_) {
    SP_CHECK(extent >= 0, "a tensor has a negative extent");
    SP_CHECK(!__builtin_mul_overflow(size_, extent, &size_), "a tensor is too large to address");
  }
  bytes_.resize(static_cast<std::size_t>(size_) * size_of(dtype));
}

HostTensor HostTensor::from_doubles(DType dtype, std::vector<std::int64_t> shape,
                                    std::span<const double> values) {
  HostTensor tensor(dtype, std::move(shape));
  SP_CHECK(static_cast<std::int64_t>(values.size()) == tensor.size(),
           "values do not fill the shape");
  for (std::int64_t i = 0; i < tensor.size(); ++i)
    tensor.set(i, values[static_cast<std::size_t>(i)]);
  return tensor;
}

double HostTensor::at(std::int64_t flat) const {
  return visit_dtype(dtype_, [&]<class T>() -> double {
    return static_cast<double>(widen(as<T>()[static_cast<std::size_t>(flat)]));
  });
}

void HostTensor::set(std::int64_t flat, double value) {
  visit_dtype(dtype_,
              [&]<class T>() { as<T>()[static_cast<std::size_t>(flat)] = narrow<T>(value); });
}

HostTensor HostTensor::cast(DType dtype) const {
  if (absent()) return {};
  if (dtype == dtype_) return *this;
  HostTensor result(dtype, shape_);
  for (std::int64_t i = 0; i < size_; ++i) result.set(i, at(i));
  return result;
}

std::string describe_shape(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

}  // namespace sp
