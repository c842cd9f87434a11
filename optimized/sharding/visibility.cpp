// SPDX-License-Identifier: Apache-2.0
#include "optimized/sharding/visibility.hpp"

#include <algorithm>
#include <utility>

namespace sp {

Visibility classify(const Band& band, std::int64_t q_first, std::int64_t q_last,
                    std::int64_t k_first, std::int64_t k_last) {
  const std::int64_t forward_gap = k_first - q_last;   // > 0: every key lies after every query
  const std::int64_t backward_gap = q_first - k_last;  // > 0: every key lies before every query
  if (band.causal && forward_gap > 0) return Visibility::kEmpty;
  if (band.window > 0 && std::max(forward_gap, backward_gap) >= band.window)
    return Visibility::kEmpty;
  const bool all_before = k_last <= q_first;
  const std::int64_t farthest = std::max(q_last - k_first, k_last - q_first);
  const bool inside = band.window == 0 || farthest < band.window;
  return (!band.causal || all_before) && inside ? Visibility::kFull : Visibility::kPartial;
}

Rows hull(Rows a, Rows b) {
  if (a.empty()) return b;
  if (b.empty()) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

Rows visible_rows(const Band& band, const Tokens& queries, const Tokens& keys) {
  Rows rows;
  std::int64_t offset = 0;
  for (const Run& q : queries.runs()) {
    for (const Run& k : keys.runs()) {
      if (classify(band, q.first, q.last(), k.first, k.last()) == Visibility::kEmpty) continue;
      rows = hull(rows, {offset, offset + q.count});
    }
    offset += q.count;
  }
  return rows;
}

namespace {

// Sum of floor((a + b i) / m) over i = 0..n-1; m > 0, a and b not negative.
std::int64_t sum_of_floors(std::int64_t n, std::int64_t m, std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  while (n > 0) {
    sum += n * (a / m) + n * (n - 1) / 2 * (b / m);
    a %= m;
    b %= m;
    const std::int64_t last = a + b * n;  // rows of the remaining triangle become its columns
    n = last / m;
    a = last % m;
    std::swap(m, b);
  }
  return sum;
}

// Keys at positions up to bound + i stride, summed over i = 0..count-1; stride > 0.
std::int64_t keys_up_to(const Run& keys, std::int64_t bound, std::int64_t stride,
                        std::int64_t count) {
  // Before `some` a query's bound lies before the first key, from `all` on not before the last.
  const auto first_at = [&](std::int64_t position) {
    const std::int64_t distance = position - bound;
    return distance <= 0 ? 0 : std::min((distance + stride - 1) / stride, count);
  };
  const std::int64_t some = first_at(keys.first), all = first_at(keys.last());
  const std::int64_t between = all - some;
  return (count - all) * keys.count + between +
         sum_of_floors(between, keys.stride, bound + some * stride - keys.first, stride);
}

}  // namespace

std::int64_t visible_pairs(const Band& band, const Tokens& queries, const Tokens& keys) {
  std::int64_t pairs = 0;
  for (const Run& q : queries.runs()) {
    for (const Run& k : keys.runs()) {
      const auto up_to = [&](std::int64_t offset) {
        return keys_up_to(k, q.first + offset, q.stride, q.count);
      };
      const bool ends = band.causal || band.window > 0;
      pairs += ends ? up_to(band.causal ? 0 : band.window - 1) : q.count * k.count;
      if (band.window > 0) pairs -= up_to(-band.window);
    }
  }
  return pairs;
}

}  // namespace sp
