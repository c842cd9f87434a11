// SPDX-License-Identifier: Apache-2.0
#include "harness/ledger/entries.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "reference/problem/error.hpp"

namespace sp::ledger {
namespace {

// Bits of a name, from the right.
constexpr int kTokenBits = 17, kHeadBits = 12, kBatchBits = 4, kColumnBits = 6;
constexpr std::int64_t field(std::int64_t code, int shift, int bits) {
  return code >> shift & ((std::int64_t{1} << bits) - 1);
}

// -1 for what is no whole number that can be a name: poison, rounded sums, -inf.
std::int64_t code_of(double value) {
  return value >= 0 && value < 0x1p53 && value == std::floor(value)
             ? static_cast<std::int64_t>(value)
             : -1;
}

}  // namespace

void refuse(const std::string& what) { throw Error(ErrorKind::kInternal, "ledger: " + what); }

const char* name_of(Operand operand) {
  switch (operand) {
    case Operand::kQuery:
      return "query";
    case Operand::kKey:
      return "key";
    case Operand::kValue:
      return "value";
    case Operand::kGradient:
      return "d_out";
    case Operand::kDelta:
      return "delta";
    case Operand::kProjectionK:
      return "projection of keys";
    case Operand::kProjectionV:
      return "projection of values";
    case Operand::kLogDecay:
      return "log_decay";
    case Operand::kGamma:
      return "gamma";
    case Operand::kBeta:
      return "beta";
  }
  return "nothing";
}

std::string describe(const Place& place) {
  return fmt::format("{} of batch {}, token {}, head {}", name_of(place.operand), place.b, place.n,
                     place.h);
}

double encode(const Place& place, std::int64_t column) {
  std::int64_t code = static_cast<std::int64_t>(place.operand);
  code = code << kBatchBits | place.b;
  code = code << kHeadBits | place.h;
  code = code << kTokenBits | place.n;
  return static_cast<double>(code << kColumnBits | column);
}

Place read(const Row& row, Operand expected) {
  const std::int64_t code = code_of(row[0]);
  if (code < 0) refuse(fmt::format("a {} was expected and {} found", name_of(expected), row[0]));
  int shift = kColumnBits;
  Place place;
  place.n = field(code, shift, kTokenBits);
  place.h = field(code, shift += kTokenBits, kHeadBits);
  place.b = field(code, shift += kHeadBits, kBatchBits);
  place.operand = static_cast<Operand>(code >> (shift + kBatchBits));
  if (place.operand != expected)
    refuse(fmt::format("a {} was expected and a {} found", name_of(expected), describe(place)));
  for (std::int64_t column = 0; column < row.columns(); ++column) {
    if (row[column] != encode(place, column))
      refuse(fmt::format("column {} is not that of the {}", column, describe(place)));
  }
  return place;
}

double lse_of(const Entry& entry) {
  return entry.count == 0 ? -std::numeric_limits<double>::infinity()
                          : static_cast<double>(entry.total);
}

double encode(const Pair& pair) {
  std::int64_t code = static_cast<std::int64_t>(pair.stage);
  code = code << kBatchBits | pair.b;
  code = code << kHeadBits | pair.h;
  code = code << kTokenBits | pair.i;
  return static_cast<double>(code << kTokenBits | pair.j);
}

Pair read_pair(double score, Stage expected) {
  const std::int64_t code = code_of(score);
  int shift = 0;
  Pair pair;
  pair.j = field(code, shift, kTokenBits);
  pair.i = field(code, shift += kTokenBits, kTokenBits);
  pair.h = field(code, shift += kTokenBits, kHeadBits);
  pair.b = field(code, shift += kHeadBits, kBatchBits);
  pair.stage = static_cast<Stage>(code >> (shift + kBatchBits));
  if (code < 0 || pair.stage != expected)
    refuse(fmt::format("score {} is of no pair, or not at its stage", score));
  return pair;
}

}  // namespace sp::ledger
