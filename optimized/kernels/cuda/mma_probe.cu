// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/device.cuh"
#include "optimized/kernels/cuda/mma_probe.hpp"

namespace sp::SP_GPU {
namespace {

// Fragments as the PTX ISA lays them out for m16n8k16.
template <class T>
__global__ void mma_probe(Global<float> d, Global<const T> a, Global<const T> b,
                          Global<const float> c) {
  constexpr int kDepth = 16, kColumns = 8;
  const int row = lane_id() / 4, column = lane_id() % 4 * 2;
  std::uint32_t left[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = (row + i % 2 * 8) * kDepth + column + i / 2 * 8;
    left[i] = pack<T>(to_float(a.load(at)), to_float(a.load(at + 1)));
  }
  const auto right = [&](int k) {
    return pack<T>(to_float(b.load(k * kColumns + row)),
                   to_float(b.load((k + 1) * kColumns + row)));
  };
  const int places[4] = {row * kColumns + column, row * kColumns + column + 1,
                         (row + 8) * kColumns + column, (row + 8) * kColumns + column + 1};
  float sums[4] = {c.load(places[0]), c.load(places[1]), c.load(places[2]), c.load(places[3])};
  mma_16x8x16<T>(sums, left, right(column), right(column + 8));
#pragma unroll
  for (int i = 0; i < 4; ++i) d.store(places[i], sums[i]);
}

template <class T>
void run(const Gpu& gpu, const Tensor& d, const Tensor& a, const Tensor& b, const Tensor& c) {
  launch(gpu, "mma_probe", mma_probe<T>, {dim3(1), kWarp, 0}, Global<float>(d.as<float>()),
         Global<const T>(a.as<T>()), Global<const T>(b.as<T>()),
         Global<const float>(c.as<float>()));
}

}  // namespace

void mma_once(const Gpu& gpu, const Tensor& d, const Tensor& a, const Tensor& b, const Tensor& c) {
  SP_CHECK(a.elements() == 256 && b.elements() == 128 && c.elements() == 128,
           "a product of a warp");
  if (a.dtype() == DType::kBF16) return run<__nv_bfloat16>(gpu, d, a, b, c);
  SP_CHECK(a.dtype() == DType::kF16, "tensor cores multiply bf16 and f16");
  run<__half>(gpu, d, a, b, c);
}

}  // namespace sp::SP_GPU
