// load_matrix and mma of the emulator against plain loops, with data that no exchange of rows,
// columns or registers leaves alone.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "harness/emulator/emulator.hpp"
#include "tests/emulated/lanes.hpp"

namespace sp::emulated {
namespace {

template <class T>
class EmulatorTensorCore : public testing::Test {
 protected:
  ~EmulatorTensorCore() override { emulator::plant({}); }
};
using Halves = testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(EmulatorTensorCore, Halves);

using A = std::array<std::array<float, 16>, 16>;  // [row][k]
using B = std::array<std::array<float, 8>, 16>;   // [k][column]
using C = std::array<std::array<float, 8>, 16>;   // [row][column]

struct Operands {
  A a;
  B b;
  C c;
};

// Integers small enough for every order of summation to be exact.
Operands integers(unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> draw(-15, 15);
  Operands operands;
  const auto fill = [&](auto& matrix) {
    for (auto& row : matrix) {
      for (float& x : row) x = static_cast<float>(draw(random));
    }
  };
  fill(operands.a);
  fill(operands.b);
  fill(operands.c);
  return operands;
}

C plain_product(const Operands& o) {
  C c = o.c;
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      for (std::size_t k = 0; k < 16; ++k) c[i][j] += o.a[i][k] * o.b[k][j];
    }
  }
  return c;
}

// One warp's product with the fragments as device.cuh documents them.
template <class T>
C product_by_fragments(const Operands& o, std::uint64_t seed = 1) {
  C result{};
  run_lanes({.seed = seed}, [&] {
    const auto row = static_cast<std::size_t>(lane_id() / 4);
    const auto column = static_cast<std::size_t>(lane_id() % 4 * 2);
    std::uint32_t a[4];
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t m = row + i % 2 * 8, k = column + i / 2 * 8;
      a[i] = pack<T>(o.a[m][k], o.a[m][k + 1]);
    }
    const std::uint32_t b0 = pack<T>(o.b[column][row], o.b[column + 1][row]);
    const std::uint32_t b1 = pack<T>(o.b[column + 8][row], o.b[column + 9][row]);
    float c[4] = {o.c[row][column], o.c[row][column + 1], o.c[row + 8][column],
                  o.c[row + 8][column + 1]};
    mma_16x8x16<T>(c, a, b0, b1);
    result[row][column] = c[0];
    result[row][column + 1] = c[1];
    result[row + 8][column] = c[2];
    result[row + 8][column + 1] = c[3];
  });
  return result;
}

// The same from row-major A [16, 16] and B [16, 8] in shared memory, through load_matrix.
template <class T>
C product_by_load_matrix(const Operands& o) {
  C result{};
  run_lanes({.shared_bytes = (16 * 16 + 16 * 16) * 2}, [&] {
    const auto a_tile = shared_memory<T>(0);
    const auto b_tile = shared_memory<T>(16 * 16 * 2);  // columns 8 to 15: never written
    const auto lane = static_cast<std::size_t>(lane_id());
    for (std::size_t i = lane; i < 256; i += 32) {
      a_tile.store(static_cast<int>(i), from_float<T>(o.a[i / 16][i % 16]));
      if (i % 16 < 8) b_tile.store(static_cast<int>(i), from_float<T>(o.b[i / 16][i % 16]));
    }
    warp_barrier();
    std::uint32_t a[4], b[4];
    // Matrices 0, 1: rows 0-7 and 8-15 of columns 0-7; 2, 3: of columns 8-15.
    load_matrix_x4(a, a_tile + (lane_id() % 16) * 16 + lane_id() / 16 * 8);
    load_matrix_x4_transposed(b, b_tile + (lane_id() % 16) * 16);
    const std::size_t row = lane / 4, column = lane % 4 * 2;
    float c[4] = {o.c[row][column], o.c[row][column + 1], o.c[row + 8][column],
                  o.c[row + 8][column + 1]};
    mma_16x8x16<T>(c, a, b[0], b[1]);
    result[row][column] = c[0];
    result[row][column + 1] = c[1];
    result[row + 8][column] = c[2];
    result[row + 8][column + 1] = c[3];
  });
  return result;
}

TYPED_TEST(EmulatorTensorCore, MultipliesFragmentsAsDocumented) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    const Operands operands = integers(seed);
    EXPECT_EQ(product_by_fragments<TypeParam>(operands, seed), plain_product(operands));
  }
}

TYPED_TEST(EmulatorTensorCore, MultipliesWhatLoadMatrixBrings) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    const Operands operands = integers(seed);
    EXPECT_EQ(product_by_load_matrix<TypeParam>(operands), plain_product(operands));
  }
}

TYPED_TEST(EmulatorTensorCore, SumsInAnyOrderButTheSameForEveryLaunch) {
  std::mt19937 random(7);
  std::normal_distribution<float> draw;
  Operands operands;
  double magnitude = 0;
  for (std::size_t k = 0; k < 16; ++k) {
    for (float& x : operands.a[k]) x = to_float(from_float<TypeParam>(draw(random)));
    for (float& x : operands.b[k]) x = to_float(from_float<TypeParam>(draw(random)));
    for (float& x : operands.c[k]) x = draw(random);
  }
  const C first = product_by_fragments<TypeParam>(operands, 1);
  for (std::uint64_t seed = 2; seed < 6; ++seed) {
    EXPECT_EQ(product_by_fragments<TypeParam>(operands, seed), first);
  }
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      double exact = operands.c[i][j];
      magnitude = std::fabs(exact);
      for (std::size_t k = 0; k < 16; ++k) {
        const double term = double{operands.a[i][k]} * double{operands.b[k][j]};
        exact += term;
        magnitude += std::fabs(term);
      }
      EXPECT_LE(std::fabs(first[i][j] - exact), 17 * 0x1p-24 * magnitude);
    }
  }
}

TYPED_TEST(EmulatorTensorCore, SabotagesChangeTheProduct) {
  const Operands operands = integers(3);
  for (const char* id : {"mma_a_swapped", "mma_b_swapped", "mma_c_not_accumulated",
                         "load_matrix_row_off", "load_matrix_not_transposed"}) {
    emulator::plant({.id = id, .kernel = ""});
    EXPECT_NE(product_by_load_matrix<TypeParam>(operands), plain_product(operands)) << id;
  }
  emulator::plant({});
  EXPECT_EQ(product_by_load_matrix<TypeParam>(operands), plain_product(operands));
}

// ---- load_matrix -------------------------------------------------------------------------------

// Matrix m, row r, column c holds 100 m + 10 r + c; row r of matrix m lies at 16-byte slot
// (5 (8 m + r)) % 32, so that nothing is where its number says.
void expect_layout(bool transposed) {
  run_lanes({.shared_bytes = 512}, [&] {
    const int slot = 5 * lane_id() % 32;
    const auto row = shared_memory<std::uint16_t>(0) + slot * 8;
    for (int c = 0; c < 8; ++c) {
      const int value = 100 * (lane_id() / 8) + 10 * (lane_id() % 8) + c;
      row.store(c, static_cast<std::uint16_t>(value));
    }
    warp_barrier();
    std::uint32_t r[4];
    transposed ? load_matrix_x4_transposed(r, row) : load_matrix_x4(r, row);
    const auto major = static_cast<std::uint32_t>(lane_id() / 4);
    const auto minor = static_cast<std::uint32_t>(lane_id() % 4 * 2);
    for (std::uint32_t m = 0; m < 4; ++m) {
      EXPECT_EQ(r[m] & 0xffff, 100 * m + (transposed ? 10 * minor + major : 10 * major + minor));
      EXPECT_EQ(r[m] >> 16,
                100 * m + (transposed ? 10 * (minor + 1) + major : 10 * major + minor + 1));
    }
  });
}

TEST(EmulatorLoadMatrix, GivesEveryLaneTheDocumentedElements) { expect_layout(false); }

TEST(EmulatorLoadMatrix, TransposesEveryMatrix) { expect_layout(true); }

TEST(EmulatorLoadMatrix, ChecksTheRowOfEveryLane) {
  const auto load_with_row_of_lane_9 = [](int offset) {
    return [offset] {
      const auto tile = shared_memory<std::uint16_t>(0);
      for (int i = lane_id(); i < 256; i += 32) tile.store(i, 0);
      warp_barrier();
      std::uint32_t r[4];
      load_matrix_x4(r, tile + (lane_id() == 9 ? offset : 8 * lane_id()));
    };
  };
  const Lanes shape{.shared_bytes = 1024};
  expect_no_fault(shape, load_with_row_of_lane_9(0));
  expect_fault(FaultKind::kMisaligned, {"thread 9 (warp 0, lane 9): read of 16 bytes at byte 8"},
               shape, load_with_row_of_lane_9(4));
  expect_fault(FaultKind::kUninitialised, {"thread 9 (warp 0, lane 9): read of shared byte 512"},
               shape, load_with_row_of_lane_9(256));
  expect_fault(FaultKind::kOutOfBounds,
               {"thread 9 (warp 0, lane 9): read of 16 bytes at byte 1024"}, shape,
               load_with_row_of_lane_9(512));
}

TEST(EmulatorLoadMatrix, RacesWithWhoWroteTheRow) {
  const auto tile_and_load = [](bool barrier) {
    return [barrier] {
      const auto tile = shared_memory<std::uint16_t>(0);
      for (int i = 0; i < 8; ++i) tile.store(8 * lane_id() + i, 0);
      if (barrier) warp_barrier();
      std::uint32_t r[4];
      load_matrix_x4(r, tile + 8 * (31 - lane_id()));
    };
  };
  expect_no_fault({.shared_bytes = 512}, tile_and_load(true));
  expect_fault(FaultKind::kRace, {"no warp_barrier or block_barrier between"},
               {.shared_bytes = 512}, tile_and_load(false));
}

TEST(EmulatorLoadMatrix, NeedsTheWholeWarp) {
  expect_fault(FaultKind::kDivergentBarrier, {"load_matrix_x4", "lane"}, {.shared_bytes = 512}, [] {
    std::uint32_t r[4];
    if (lane_id() < 31) load_matrix_x4(r, shared_memory<std::uint16_t>(0));
  });
}

TEST(EmulatorLoadMatrix, ConflictsAreCounted) {
  const auto wavefronts = [](int stride) {  // of rows, in bytes
    emulator::count_accesses(true);
    run_lanes({.shared_bytes = 32 * 144}, [stride] {
      for (int i = 0; lane_id() == 0 && i < 32 * 36; ++i) shared_memory<int>(0).store(i, 0);
      warp_barrier();
      std::uint32_t r[4];
      load_matrix_x4(r, shared_memory<std::uint16_t>(lane_id() * stride));
    });
    emulator::count_accesses(false);
    return emulator::take_counts().at(0).shared_wavefronts;
  };
  EXPECT_EQ(wavefronts(16), 4);
  EXPECT_EQ(wavefronts(144), 4);      // 128 bytes and 16 of padding
  EXPECT_EQ(wavefronts(128), 4 * 8);  // every row in the same banks
  EXPECT_EQ(wavefronts(32), 4 * 2);
}

}  // namespace
}  // namespace sp::emulated
