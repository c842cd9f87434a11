// SPDX-License-Identifier: Apache-2.0
#include "experiments/ratio.hpp"

#include <algorithm>
#include <cmath>

#include "harness/results/bench_row.hpp"

namespace sp {
namespace {

constexpr double kTail = 0.025;           // on each side of the interval
constexpr std::size_t kMostExact = 2500;  // pairs; beyond, the normal approximation is as good

// Ways in which u of the pairs of m and n samples are in inverse order, as a share of all ways.
std::vector<double> share_of_orders(std::size_t m, std::size_t n) {
  // shares[j] for (i, j) samples: the largest of all is of the first set or of the second.
  std::vector<std::vector<double>> shares(n + 1, {1.0});
  for (std::size_t i = 1; i <= m; ++i) {
    shares[0] = {1.0};
    for (std::size_t j = 1; j <= n; ++j) {
      std::vector<double> share(i * j + 1, 0.0);
      const double first = static_cast<double>(i) / static_cast<double>(i + j);
      // Above stand the shares of (i - 1, j), to the left those of (i, j - 1).
      for (std::size_t u = 0; u < shares[j].size(); ++u) share[u + j] += first * shares[j][u];
      for (std::size_t u = 0; u < shares[j - 1].size(); ++u)
        share[u] += (1 - first) * shares[j - 1][u];
      shares[j] = std::move(share);
    }
  }
  return shares[n];
}

// How many of the smallest (and of the largest) ratios lie outside of the interval.
std::size_t left_out(std::size_t m, std::size_t n) {
  if (m * n > kMostExact) {
    const auto pairs = static_cast<double>(m * n);
    const double deviation = std::sqrt(pairs * static_cast<double>(m + n + 1) / 12);
    return static_cast<std::size_t>(std::max(0.0, std::floor(pairs / 2 - 1.96 * deviation)));
  }
  std::size_t count = 0;
  double sum = 0;
  for (const double share : share_of_orders(m, n)) {
    sum += share;
    if (sum > kTail) break;
    ++count;
  }
  return count;
}

}  // namespace

Ratio ratio_of(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (const double x : a) {
    for (const double y : b) ratios.push_back(y / x);
  }
  Ratio ratio{summarize(ratios).median};
  const std::size_t outside = ratios.empty() ? 0 : left_out(a.size(), b.size());
  if (outside > 0) {
    std::sort(ratios.begin(), ratios.end());
    ratio.low = ratios[outside - 1];
    ratio.high = ratios[ratios.size() - outside];
  }
  return ratio;
}

}  // namespace sp
