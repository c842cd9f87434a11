// ldmatrix and mma.m16n8k16, with the layouts of the PTX ISA.
//
// Sums  16 products, exact in f32, and the accumulator are added in an order that is unspecified on a
//       GPU; here it follows from the machine's seed, the same for all launches, so equal launches
//       give equal bits. Either in f32, each addition rounded to the nearest; or, as measured on
//       A100 (8 products at a time) and H100 (16; arXiv:2511.10909, 2512.07004), cut off at the last
//       bit of the largest addend, added without rounding, and cut off again.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <utility>

#include "harness/emulator/block.hpp"
#include "harness/emulator/include/cuda_bf16.h"
#include "harness/emulator/include/cuda_fp16.h"

namespace sp::emulator {
namespace {

constexpr int kRows = 8;  // of a matrix of ldmatrix, and its columns
constexpr int kRowBytes = 16;
constexpr int kM = 16, kN = 8, kK = 16;

// ---- ldmatrix ----------------------------------------------------------------------------------

struct LoadMatrix {
  const void* row;
  bool transposed;
  std::uint32_t* r;  // [4]
};

void perform_load_matrix(Warp& warp) {
  Block& block = *warp.block;
  std::uint16_t matrix[4][kRows][kRows];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const bool off = block.sabotage.load_matrix_row_off && lane / kRows == 1;
    const int giver = off ? kRows + (lane + 1) % kRows : lane;
    const Lane& reader = warp.first[lane];
    const void* const row = warp.of<LoadMatrix>(giver).row;
    std::memcpy(matrix[lane / kRows][lane % kRows], block.shared.read<kRowBytes>(row, reader),
                kRowBytes);
    if (block.counter) {
      block.counter->shared(reader.thread, block.shared.offset_of(row), kRowBytes);
    }
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const LoadMatrix& load = warp.of<LoadMatrix>(lane);
    const bool transposed = load.transposed && !block.sabotage.load_matrix_not_transposed;
    const int major = lane / 4, minor = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t low = transposed ? matrix[i][minor][major] : matrix[i][major][minor];
      const std::uint32_t high =
          transposed ? matrix[i][minor + 1][major] : matrix[i][major][minor + 1];
      load.r[i] = low | high << 16;
    }
  }
}

constexpr WarpOperation kLoadMatrix{"load_matrix_x4", perform_load_matrix};

// ---- mma ---------------------------------------------------------------------------------------

struct Mma {
  float* c;                // [4]
  const std::uint32_t* a;  // [4]
  std::uint32_t b[2];
};

template <class T>
float widen(std::uint32_t bits) {
  const auto half = static_cast<std::uint16_t>(bits);
  if constexpr (std::is_same_v<T, __half>) {
    return __half2float({half});
  } else {
    return __bfloat162float({half});
  }
}

// A row of C or B, in the host's vector registers.
using Row = float __attribute__((vector_size(kN * sizeof(float))));

// sum += a b over k = begin, begin + step, ..., row by row: a row's sums stay in registers.
template <int kBegin, int kStep, int kTerms>
void add_products(Row* sum, const float (&a)[kM][kK], const Row* b) {
  for (int i = 0; i < kM; ++i) {
    Row row = sum[i];
    for (int term = 0, k = kBegin; term < kTerms; ++term, k += kStep) row += a[i][k] * b[k];
    sum[i] = row;
  }
}

void add(Row* c, const Row* sum) {
  for (int i = 0; i < kM; ++i) c[i] += sum[i];
}

// x without what lies below `unit`, a power of two.
double cut_off(double x, double unit) { return std::trunc(x / unit) * unit; }
float cut_off_to_float(double x) {
  const auto nearest = static_cast<float>(x);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? std::nextafterf(nearest, 0.0f)
                                                                : nearest;
}

// c += a b, kGroup products at a time. All addends are multiples of the last bit of the largest, up to
// 17 of them below 2^24: their sum is exact in double.
template <int kGroup>
void add_truncated(Row* c, const float (&a)[kM][kK], const Row* b) {
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) {
      for (int k = 0; k < kK; k += kGroup) {
        double addends[kGroup + 1] = {c[i][j]}, largest = std::fabs(addends[0]);
        for (int e = 0; e < kGroup; ++e) {
          addends[e + 1] = static_cast<double>(a[i][k + e]) * b[k + e][j];
          largest = std::fabs(addends[e + 1]) > largest ? std::fabs(addends[e + 1]) : largest;
        }
        double sum = 0;
        if (largest > 0 && std::isfinite(largest)) {
          const double unit = std::ldexp(1.0, std::max(std::ilogb(largest), -126) - 23);
          for (const double addend : addends) sum += cut_off(addend, unit);
        } else {  // zeros, or something that is no number
          for (const double addend : addends) sum += addend;
        }
        c[i][j] = cut_off_to_float(sum);
      }
    }
  }
}

// c += a b in one of the orders that a tensor core might use.
void multiply_add(Row* c, const float (&a)[kM][kK], const Row* b, int order) {
  if (order == 0) {  // the accumulator, then the products
    add_products<0, 1, kK>(c, a, b);
  } else if (order == 1) {  // backwards
    add_products<kK - 1, -1, kK>(c, a, b);
  } else if (order == 2) {  // the products by themselves, then the accumulator
    Row sum[kM] = {};
    add_products<0, 1, kK>(sum, a, b);
    add(c, sum);
  } else if (order == 4) {
    add_truncated<8>(c, a, b);
  } else if (order == 5) {
    add_truncated<16>(c, a, b);
  } else {  // the products by themselves in two halves
    Row low[kM] = {}, high[kM] = {};
    add_products<0, 1, kK / 2>(low, a, b);
    add(c, low);
    add_products<kK / 2, 1, kK / 2>(high, a, b);
    add(c, high);
  }
}

template <class T>
void perform_mma(Warp& warp) {
  const Sabotages& sabotage = warp.block->sabotage;
  float a[kM][kK];
  Row b[kK], c[kM];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const Mma& mma = warp.of<Mma>(lane);
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      const int from = sabotage.mma_a_swapped && (i == 1 || i == 2) ? 3 - i : i;
      const int k = column + i / 2 * 8, m = row + i % 2 * 8;
      a[m][k] = widen<T>(mma.a[from]);
      a[m][k + 1] = widen<T>(mma.a[from] >> 16);
      c[row + i / 2 * 8][column + i % 2] = sabotage.mma_c_not_accumulated ? 0.0f : mma.c[i];
    }
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t pair = mma.b[sabotage.mma_b_swapped ? 1 - i : i];
      b[column + i * 8][row] = widen<T>(pair);
      b[column + i * 8 + 1][row] = widen<T>(pair >> 16);
    }
  }
  multiply_add(c, a, b, warp.block->sum_order);
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    float* const result = warp.of<Mma>(lane).c;
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) result[i] = c[row + i / 2 * 8][column + i % 2];
  }
}

constexpr WarpOperation kMmaBf16{"mma of bf16", perform_mma<__nv_bfloat16>};
constexpr WarpOperation kMmaF16{"mma of f16", perform_mma<__half>};

}  // namespace

void load_matrix_x4(std::uint32_t (&r)[4], const void* row, bool transposed) {
  const Unseen unseen;
  LoadMatrix load{row, transposed, r};
  meet(kLoadMatrix, &load);
}

void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const Unseen unseen;
  Mma mma{c, a, {b0, b1}};
  meet(kMmaBf16, &mma);
}

void mma_f16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const Unseen unseen;
  Mma mma{c, a, {b0, b1}};
  meet(kMmaF16, &mma);
}

}  // namespace sp::emulator
