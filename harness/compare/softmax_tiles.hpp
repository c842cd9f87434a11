// Tiles of rows of one head, and sums over the pairs of two tiles: what the sweeps of softmax_rows.cpp are made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>

#include "harness/compare/double_tiles.hpp"
#include "harness/compare/head_rows.hpp"
#include "harness/compare/softmax_rows.hpp"

namespace sp::tiles {

using std::int64_t;

inline double squared(double x) { return x * x; }

inline int64_t padded(int64_t count) {
  return (count + double_tiles::kLanes - 1) / double_tiles::kLanes * double_tiles::kLanes;
}

// Rows [B, N, heads, size] of one tensor, and their norms.
struct Tensor {
  const Doubles& x;
  int64_t N, heads, size;
  Doubles norms;  // [B, N, heads]
  Tensor(const Doubles& values, int64_t rows, int64_t of_heads, int64_t width)
      : x(values), N(rows), heads(of_heads), size(width), norms(values.size() / at(width)) {
    for (std::size_t row = 0; row < norms.size(); ++row) {
      const double* begin = x.data() + row * at(size);
      norms[row] = std::sqrt(std::inner_product(begin, begin + size, begin, 0.0));
    }
  }
  int64_t row(int64_t b, int64_t token, int64_t head) const {
    return (b * N + token) * heads + head;
  }
};

// What the products want of a tile of rows besides the rows.
enum Wanted : unsigned { kRows = 0, kSquares = 1, kTurned = 2 };

// A tile of rows of one head.
struct Rows {
  int64_t count = 0, size = 0, stride = 0;
  Doubles rows, squares;  // [count, stride]
  Doubles turned;         // [size, padded(count)]
  Doubles norms;          // [padded(count)]
  int64_t width() const { return padded(count); }

  void load(const Tensor& from, int64_t b, int64_t head, std::span<const int64_t> tokens,
            unsigned wanted) {
    count = std::ssize(tokens), size = from.size, stride = padded(size);
    rows.resize(at(count * stride));
    norms.assign(at(width()), 0);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = from.row(b, tokens[at(r)], head);
      double* target = rows.data() + r * stride;
      std::copy_n(from.x.data() + row * size, size, target);
      std::fill(target + size, target + stride, 0);
      norms[at(r)] = from.norms[at(row)];
    }
    if ((wanted & kSquares) != 0) {
      squares.resize(rows.size());
      for (std::size_t i = 0; i < rows.size(); ++i) squares[i] = rows[i] * rows[i];
    }
    if ((wanted & kTurned) != 0) turn();
  }

 private:
  // Some rows at a time, whose lines of memory stay close.
  void turn() {
    constexpr int64_t kAtOnce = double_tiles::kLanes;
    turned.resize(at(size * width()));
    for (int64_t first = 0; first < width(); first += kAtOnce) {
      const int64_t here = std::min(kAtOnce, count - first);
      for (int64_t c = 0; c < size; ++c) {
        double* target = turned.data() + c * width() + first;
        for (int64_t r = 0; r < kAtOnce; ++r)
          target[r] = r < here ? rows[at((first + r) * stride + c)] : 0;
      }
    }
  }
};

// A growing sum of every element of a tile: of terms, of their squares, and the range of the former.
struct Sums {
  int64_t rows, stride;
  Doubles sum, variance, low, high;
  Doubles squares;  // of the terms; kept where it is asked for
  Sums(int64_t of_rows, int64_t size)
      : rows(of_rows),
        stride(padded(size)),
        sum(at(rows * stride)),
        variance(sum),
        low(sum),
        high(sum) {}

  // c += weights b, with weights [rows, b.count] or, turned, [b.count, rows], whose own rows are `width` long.
  void multiply(Doubles& c, const Doubles& weights, int64_t width, bool turned, const Rows& of,
                const Doubles& b) const {
    double_tiles::multiply_add({c.data(), stride, weights.data(), turned ? 1 : width,
                                turned ? width : 1, b.data(), stride, rows, stride, of.count});
  }
  // steps: how many terms every row gets.
  void add(const Doubles& weights, const Doubles& variances, int64_t width, bool turned,
           const Rows& terms, const Doubles& steps, double w) {
    multiply(sum, weights, width, turned, terms, terms.rows);
    multiply(variance, variances, width, turned, terms, terms.squares);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t from = i * stride;
      double_tiles::add_step(low.data() + from, high.data() + from, variance.data() + from,
                             sum.data() + from, w * w / 3 * steps[at(i)], stride);
    }
  }
  double range(int64_t i) const { return high[at(i)] - low[at(i)]; }
};

}  // namespace sp::tiles
