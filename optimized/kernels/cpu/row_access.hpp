// Rows of contiguous tensors in the accumulator type: where they lie if they hold it, else through
// scratch.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/cpu/tile.hpp"

namespace sp {

// All rows of a tensor [n, B, h, C], one after the other.
inline Matrix rows_of(const Tensor& tensor) {
  const std::int64_t rows = tensor.extent(0) * tensor.extent(1) * tensor.extent(2);
  return {tensor.data(), tensor.dtype(), rows, tensor.extent(3), tensor.extent(3)};
}

// A row is valid until the next one is asked for.
template <class T>
class RowReader {
 public:
  RowReader(Scratch& scratch, Slot slot, const Tensor& tensor)
      : matrix_(rows_of(tensor)), direct_(tensor.dtype() == dtype_of<T>()) {
    if (!direct_) buffer_ = scratch.get<T>(slot, matrix_.columns);
  }
  std::int64_t rows() const { return matrix_.rows; }
  std::int64_t columns() const { return matrix_.columns; }
  const T* operator()(std::int64_t i) {
    if (direct_) return matrix_.template row<T>(i);
    pack(buffer_, matrix_.columns, matrix_.row_window(i, 1));
    return buffer_;
  }

 private:
  Matrix matrix_;
  bool direct_;
  T* buffer_ = nullptr;
};

// A row is written where operator() says; done() rounds it to its place.
template <class T>
class RowWriter {
 public:
  RowWriter(Scratch& scratch, Slot slot, const Tensor& tensor)
      : matrix_(rows_of(tensor)), direct_(tensor.dtype() == dtype_of<T>()) {
    if (!direct_) buffer_ = scratch.get<T>(slot, matrix_.columns);
  }
  T* operator()(std::int64_t i) { return direct_ ? matrix_.template row<T>(i) : buffer_; }
  void done(std::int64_t i) {
    if (!direct_) store(matrix_.row_window(i, 1), buffer_, matrix_.columns);
  }

 private:
  Matrix matrix_;
  bool direct_;
  T* buffer_ = nullptr;
};

}  // namespace sp
