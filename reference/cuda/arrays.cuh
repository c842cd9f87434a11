// Arrays on the device, matrices inside them, and launches of one thread per element.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "reference/problem/error.hpp"
#include "reference/problem/global_memory.hpp"
#include "reference/problem/host_tensor.hpp"

namespace sp::SP_GPU::reference {

using Index = std::int64_t;

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, std::string(what) + ": " + cudaGetErrorString(status));
}

// [rows, columns]; rows lie `stride` elements apart.
template <class T>
struct Matrix {
  Global<T> data;
  Index rows, columns, stride;

  Matrix(Global<T> data_, Index rows_, Index columns_, Index stride_)
      : data(data_), rows(rows_), columns(columns_), stride(stride_) {}
  template <class U>
    requires std::is_same_v<const U, T>
  Matrix(const Matrix<U>& other)  // T is const
      : Matrix(other.data, other.rows, other.columns, other.stride) {}
  __device__ T operator()(Index i, Index c) const { return data.load(i * stride + c); }
  __device__ void store(Index i, Index c, T value) const { data.store(i * stride + c, value); }
  __device__ void add(Index i, Index c, T value) const { store(i, c, (*this)(i, c) + value); }
};

// Sum over c of a[i, c] b[j, c], from left to right.
template <class T>
__device__ T dot(Matrix<const T> a, Index i, Matrix<const T> b, Index j) {
  T sum = 0;
  for (Index c = 0; c < a.columns; ++c) sum += a(i, c) * b(j, c);
  return sum;
}

// Memory of the current device: zeros, or a tensor in the type T.
template <class T>
class Array {
 public:
  static constexpr DType kType = std::is_same_v<T, double> ? DType::kF64
                                 : std::is_same_v<T, int>  ? DType::kI32
                                                           : DType::kF32;
  explicit Array(Index size) : size_(size) {
    if (size == 0) return;
    check(cudaMalloc(&data_, bytes()), "cudaMalloc");
    clear();
  }
  explicit Array(const HostTensor& tensor) : Array(tensor.size()) {
    copy(data_, tensor.cast(kType).data(), cudaMemcpyHostToDevice);
  }
  explicit Array(const std::vector<T>& values) : Array(std::ssize(values)) {
    copy(data_, values.data(), cudaMemcpyHostToDevice);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data_); }

  void clear() const {
    if (size_ > 0) check(cudaMemset(data_, 0, bytes()), "cudaMemset");
  }
  HostTensor download(std::vector<Index> shape) const {
    HostTensor tensor(kType, std::move(shape));
    copy(tensor.data(), data_, cudaMemcpyDeviceToHost);
    return tensor;
  }
  Global<T> data() const { return Global<T>(data_); }
  Matrix<T> matrix(Index rows, Index columns) const { return {data(), rows, columns, columns}; }
  // Head h of sequence b of a tensor [B, rows, heads, columns].
  Matrix<T> head(Index b, Index h, Index rows, Index heads, Index columns) const {
    return {data() + (b * rows * heads + h) * columns, rows, columns, heads * columns};
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }
  void copy(void* to, const void* from, cudaMemcpyKind kind) const {
    if (size_ > 0) check(cudaMemcpy(to, from, bytes(), kind), "cudaMemcpy");
  }

  Index size_;
  T* data_ = nullptr;
};

constexpr int kThreads = 128;  // of a block

// The element [i, c] of a matrix that belongs to this thread.
struct Element {
  Index i, c;
  bool inside;
  template <class T>
  __device__ explicit Element(const Matrix<T>& matrix) {
    const Index index = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
    inside = index < matrix.rows * matrix.columns;
    i = inside ? index / matrix.columns : 0;
    c = inside ? index % matrix.columns : 0;
  }
};

// One thread for every element of `result`; kernels follow each other.
template <class T, class... Parameters, class... Arguments>
void each_element(Matrix<T> result, void (*kernel)(Matrix<T>, Parameters...),
                  Arguments&&... arguments) {
  const Index blocks = (result.rows * result.columns + kThreads - 1) / kThreads;
  if (blocks == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks), 1, 1);
  config.blockDim = dim3(kThreads, 1, 1);
  check(cudaLaunchKernelEx(&config, kernel, result, std::forward<Arguments>(arguments)...),
        "reference kernel");
}

}  // namespace sp::SP_GPU::reference
