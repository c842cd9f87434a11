// SPDX-License-Identifier: Apache-2.0
#include "optimized/sharding/visibility.hpp"

#include <algorithm>

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

std::int64_t visible_pairs(const Band& band, const Tokens& queries, const Tokens& keys) {
  std::int64_t pairs = 0;
  for (const Run& q : queries.runs()) {
    for (const Run& k : keys.runs()) {
      const Visibility whole = classify(band, q.first, q.last(), k.first, k.last());
      if (whole == Visibility::kEmpty) continue;
      if (whole == Visibility::kFull) {
        pairs += q.count * k.count;
        continue;
      }
      for (std::int64_t i = 0; i < q.count; ++i) {
        const std::int64_t query = q.position(i);
        const std::int64_t low = band.window > 0 ? query - band.window + 1 : k.first;
        std::int64_t high = band.window > 0 ? query + band.window - 1 : k.last();
        if (band.causal) high = std::min(high, query);
        const std::int64_t begin = low <= k.first ? 0 : (low - k.first + k.stride - 1) / k.stride;
        const std::int64_t end =
            high < k.first ? 0 : std::min(k.count, (high - k.first) / k.stride + 1);
        pairs += std::max(end - begin, std::int64_t{0});
      }
    }
  }
  return pairs;
}

}  // namespace sp
