// How two sets of samples differ, without assuming how they are distributed.
//
// Ratio      median of b/a over all pairs of samples (Hodges and Lehmann, on logarithms).
// Interval   of 95 %, from the ranks of the same ratios: it leaves out 1 exactly when the test of
//            Mann, Whitney and Wilcoxon tells the two sets apart at 5 %. It knows the noise within
//            the two runs, not what changed between them (clock, neighbours, placement).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <vector>

namespace sp {

struct Ratio {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  double ratio = kNone;
  double low = kNone, high = kNone;  // NaN: too few samples for an interval, 4 and 4 are enough
  bool differs() const { return low > 1 || high < 1; }
};

// Of positive samples; all NaN for none.
Ratio ratio_of(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace sp
