// Which tokens are compared where all would take too long.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "reference/problem/problem.hpp"

namespace sp {

struct Sampling {
  double seconds =
      60;  // compare everything if the double side is thought to do it within this time
  std::int64_t tokens =
      0;  // compare so many; 0: let the time decide, and then kSampledTokens of a longer one
  bool everything = false;  // whatever it takes
  int ranks = 0;            // of the run that is judged, whose chunks end somewhere; 0: unknown
};

inline constexpr std::int64_t kSampledTokens = 256;

// The rank counts whose chunks are looked at: `ranks`, or where it is 0 the usual ones.
std::vector<int> usual_ranks(int ranks);
// Tokens at which a chunk begins, but the first: chunks differ in length by one at most, the longer ones first, or all are
// rounded up.
std::set<std::int64_t> chunk_ends(std::int64_t N, std::int64_t chunks);

// In ascending order: first, middle and last; both sides of every end of a document and of the chunks of contiguous and
// zigzag layouts on `ranks` ranks (unknown: 2, 3, 4, 6, 8 and 16); and tokens spread by the golden ratio, with which no
// layout has a stride in common. At least `count` of them, if there are as many. Of ends, which may be many, at most
// four times `count`, evenly.
std::vector<std::int64_t> sample_tokens(const Problem& problem, std::int64_t count, int ranks);

}  // namespace sp
