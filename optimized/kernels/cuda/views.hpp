// What kernels get of a tensor or of tokens: small structures, passed by value.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "optimized/kernels/cuda/gpu.hpp"
#include "optimized/sharding/tokens.hpp"
#include "optimized/tensor.hpp"
#include "reference/problem/global_memory.hpp"

namespace sp::SP_GPU {

// A 4-D window [n, B, H, D] of elements of T; strides in elements.
template <class T>
struct View {
  Global<T> data;
  std::int64_t stride[4] = {0, 0, 0, 0};

  __host__ __device__ std::int64_t offset(std::int64_t i, std::int64_t b, std::int64_t h,
                                          std::int64_t d = 0) const {
    return i * stride[0] + b * stride[1] + h * stride[2] + d * stride[3];
  }
};

template <class T>
View<T> view(const Tensor& tensor) {  // undefined: null data
  View<T> result;
  if (!tensor.defined()) return result;
  result.data = Global<T>(tensor.as<T>());
  for (int axis = 0; axis < 4; ++axis) result.stride[axis] = tensor.stride(axis);
  return result;
}

// f.template operator()<T>() with the device type of a storage type; f64 is refused.
template <class F>
void visit_storage(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kBF16:
      return f.template operator()<__nv_bfloat16>();
    case DType::kF16:
      return f.template operator()<__half>();
    default:
      SP_CHECK(false, "GPU kernels know f32, bf16 and f16");
  }
}

// The positions of a block of tokens on the device, and the span of every tile of kTileTokens.
constexpr int kTileTokens = 64;
struct TokenTable {
  Global<const int> positions;  // [count]
  Global<const int2> spans;     // [tiles]: smallest and largest position of a tile
  std::int64_t count = 0;
  __host__ __device__ std::int64_t tiles() const { return (count + kTileTokens - 1) / kTileTokens; }
};

// Tables by value: those of tokens are written when they are first met, and stay.
class TokenTables {
 public:
  explicit TokenTables(const Gpu& gpu) : gpu_(gpu) {}
  TokenTable of(const Tokens& tokens);

 private:
  struct Before {
    bool operator()(const std::vector<Run>& a, const std::vector<Run>& b) const;
  };
  const Gpu& gpu_;
  std::map<std::vector<Run>, std::unique_ptr<Scratch>, Before> tables_;
};

}  // namespace sp::SP_GPU
