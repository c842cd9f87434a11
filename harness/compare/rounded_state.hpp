// A state of linear attention and what independent roundings do to it, to what is read from it, and to the decays on its
// way. Symbols and derivation: linear_sizes.hpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace sp {

class RoundedState {
 public:
  // [D, E]. w: unit roundoff of the sums. drift: what a decay other than 1 adds to its exponent, for the rounding of the
  // factor itself. sharers: how many states are stored as one sum, each term of which rounds it.
  RoundedState(std::int64_t D, std::int64_t E, bool decays, double w, double drift,
               std::int64_t sharers);

  void reset();
  // Lets the state decay by log_decay [D], null: not at all.
  void fade(const double* log_decay);
  // S += x yT, x [D], y [E]
  void add(const double* x, const double* y);

  struct Read {
    std::vector<double> value;   // xT S or S y
    std::vector<double> square;  // of its size in units of w, but for roundings of sums over tokens
    std::vector<double> sum;     // the largest square of such a sum
    double alive = 0;            // how many of them: M
  };
  void columns(const double* x, Read& result);  // [E]
  void rows(const double* y, Read& result);     // [D]

 private:
  static constexpr std::int64_t kPending = 32;
  static constexpr std::size_t kLook = 32;  // terms
  // Per element: the state, its roundings, products; the highest columns and rows of the state so far; products by exponents
  // and their squares, and the state by exponents.
  enum : std::size_t { kS, kR, kT0, kColumns, kRows, kT1, kT2, kL, kArrays };

  std::int64_t new_step();
  void apply();
  void look();
  void prepare(Read& result, std::int64_t size) const;
  static void take_parts(const std::vector<double>& terms, double apart, Read& result);
  const double* row(std::size_t array, std::int64_t c) const {
    return arrays_[array].data() + c * stride_;
  }

  std::int64_t D_, E_, stride_;  // of a row: E, padded
  bool decays_;
  double log_w_, drift_, sharers_;
  double faded_ = 0;           // sum of the slowest log decay since the reset
  std::vector<double> added_;  // the same when each term was added
  std::size_t first_alive_ = 0;
  std::array<std::vector<double>, kArrays> arrays_;  // [D, stride]
  // Steps S = diag(decay) S + x yT that are put off.
  std::vector<double> decay_, exponent_, x_;  // [kPending, D]
  std::vector<double> adds_;                  // [kPending]: how many sums are stored
  std::vector<double> y_;                     // [kPending, stride]
  std::int64_t pending_ = 0;
  bool open_ = false;  // the last step has decayed only
  std::vector<double> products_, lost_, highest_, terms_;
};

}  // namespace sp
