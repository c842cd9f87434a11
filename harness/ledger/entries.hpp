// What the ledger's tensors hold in the place of numbers: whole numbers below 2^53, which f64 keeps
// and adds exactly, in any order.
//
// Operands   A row of q, k, v or d_out says which row of the problem it is, in every column another
//            way: a kernel takes weights from what its data say they are.
// Sums       A row of a result holds what was added to it: the weights of its pairs of query and
//            key, pseudo-random numbers of 28 bits, and how many they were. A pair that is missing,
//            doubled or of somebody else changes both or, with probability 1 - 2^-28, the first.
// Pairs      A score is the name of its pair, and of what was done to it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "optimized/tensor.hpp"

namespace sp::ledger {

// Limits of the fields below: of sizes that a proof may have.
inline constexpr std::int64_t kMostBatches = 16, kMostTokens = 1 << 17, kMostHeads = 1 << 12,
                              kMostColumns = 64;

enum class Operand : std::uint8_t {
  kQuery = 1,
  kKey,
  kValue,
  kGradient,     // d_out
  kDelta,        // <d_out, out> of a row
  kProjectionK,  // Linformer: n the token, h the projected row
  kProjectionV,
  kLogDecay,  // n: 0 where all tokens share it
  kGamma,
  kBeta,
};
const char* name_of(Operand operand);

struct Place {
  Operand operand{};
  std::int64_t b = 0, n = 0, h = 0;
  bool operator==(const Place&) const = default;
};
std::string describe(const Place& place);

double encode(const Place& place, std::int64_t column);

// A sum of weights.
struct Entry {
  std::int64_t total = 0, count = 0;
  Entry& operator+=(const Entry& more) {
    total += more.total;
    count += more.count;
    return *this;
  }
  bool operator==(const Entry&) const = default;
  // What column `column` of a row holds.
  double column(std::int64_t column, std::int64_t = 0) const {
    return static_cast<double>(total + column * count);
  }
};

// Row (i, b, h) of a tensor of f64, along its last axis.
class Row {
 public:
  Row(const Tensor& tensor, std::int64_t i, std::int64_t b, std::int64_t h)
      : data_(tensor.as<double>() + i * tensor.stride(0) + b * tensor.stride(1) +
              h * tensor.stride(2)),
        stride_(tensor.stride(3)),
        columns_(tensor.extent(3)) {}
  std::int64_t columns() const { return columns_; }
  double& operator[](std::int64_t column) const { return data_[column * stride_]; }

  // Entries of sums, or flows (flow.hpp), whose rows differ by feature.
  template <class Numbers>
  void add(const Numbers& numbers, std::int64_t feature = 0) const {
    for (std::int64_t c = 0; c < columns_; ++c) (*this)[c] += numbers.column(c, feature);
  }
  template <class Numbers>
  void write(const Numbers& numbers, std::int64_t feature = 0) const {
    for (std::int64_t c = 0; c < columns_; ++c) (*this)[c] = numbers.column(c, feature);
  }
  template <class Numbers>
  bool holds(const Numbers& numbers, std::int64_t feature = 0) const {
    bool same = true;  // NaN is not
    for (std::int64_t c = 0; c < columns_; ++c)
      same = same && (*this)[c] == numbers.column(c, feature);
    return same;
  }

 private:
  double* data_;
  std::int64_t stride_, columns_;
};

// Which operand a row is; throws Error(kInternal) if it is none of that kind.
Place read(const Row& row, Operand expected);

// Log-sum-exp of a row: its total, or -inf if there is no pair.
double lse_of(const Entry& entry);

// The independent families of weights.
enum class Sum : std::uint8_t {
  kOut = 1,
  kLse,
  kDQ,
  kDK,
  kDV,
  kProjectK,  // of key or value n into projected row m
  kProjectV,
  kUnprojectK,  // of projected row m into the gradient of key or value n
  kUnprojectV,
  kDProjectionK,
  kDProjectionV,
  kState,   // of a key alone: states forget their queries
  kDState,  // of a query alone
};

constexpr std::uint64_t mix(std::uint64_t x) {  // the finaliser of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Weights of the pairs of one row: of query i of head h with key j. Or of whatever else is paired.
class Weights {
 public:
  Weights(Sum sum, std::int64_t b, std::int64_t h, std::int64_t i)
      : seed_(mix(mix((static_cast<std::uint64_t>(sum) << 8 | static_cast<std::uint64_t>(b)) << 40 |
                      static_cast<std::uint64_t>(h)) +
                  static_cast<std::uint64_t>(i))) {}
  std::int64_t operator[](std::int64_t j) const {
    return static_cast<std::int64_t>(
        mix(seed_ + static_cast<std::uint64_t>(j) * 0x9e3779b97f4a7c15u) >> 36);
  }

 private:
  std::uint64_t seed_;
};

// A score of one query and one key, and its fate.
enum class Stage : std::uint8_t { kScore = 1, kProbability, kDProbability, kDScore };
struct Pair {
  Stage stage{};
  std::int64_t b = 0, h = 0, i = 0, j = 0;
};
double encode(const Pair& pair);
Pair read_pair(double score, Stage expected);  // throws Error(kInternal)

[[noreturn]] void refuse(const std::string& what);  // Error(kInternal)

}  // namespace sp::ledger
