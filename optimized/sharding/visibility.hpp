// What queries can see, decided from positions alone: skips blocks, trims messages, counts work.
//
// Sound for every mask: segment ids only hide more than the band does, so "empty" and "no rows"
// stay true with them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "optimized/sharding/tokens.hpp"

namespace sp {

// The mask terms that depend on positions only.
struct Band {
  bool causal = false;
  std::int64_t window = 0;  // |i - j| < window; 0: none
  bool sees(std::int64_t query, std::int64_t key) const {
    if (causal && key > query) return false;
    const std::int64_t distance = query > key ? query - key : key - query;
    return window == 0 || distance < window;
  }
};

enum class Visibility : std::uint8_t { kEmpty, kPartial, kFull };

// Of a block of queries at positions [q_first, q_last] against keys at [k_first, k_last].
Visibility classify(const Band& band, std::int64_t q_first, std::int64_t q_last,
                    std::int64_t k_first, std::int64_t k_last);

struct Rows {
  std::int64_t begin = 0, end = 0;  // local indices
  std::int64_t count() const { return end - begin; }
  bool empty() const { return begin == end; }
  bool operator==(const Rows&) const = default;
};
Rows hull(Rows a, Rows b);  // smallest range that holds both

// The smallest range of query rows, cut at runs, outside which no query sees any of the keys.
Rows visible_rows(const Band& band, const Tokens& queries, const Tokens& keys);

inline bool any_visible(const Band& band, const Tokens& queries, const Tokens& keys) {
  return !visible_rows(band, queries, keys).empty();
}

// Number of (query, key) pairs that the band allows; O(runs of queries x runs of keys).
std::int64_t visible_pairs(const Band& band, const Tokens& queries, const Tokens& keys);

}  // namespace sp
