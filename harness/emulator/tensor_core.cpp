// ldmatrix and mma.m16n8k16, with the layouts of the PTX ISA.
//
// Sums  16 products, exact in f32, and the accumulator are added in f32, each addition rounded to
//       the nearest. The order is unspecified on a GPU; here it follows from the machine's seed,
//       the same for all launches, so equal launches give equal bits.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
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
  } else {  // the same in two halves
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
