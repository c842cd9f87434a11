// Which tokens are compared where all would take too long.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "optimized/sharding/layout.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// What is known of the run that is judged.
struct RunHint {
  int ranks = 0;  // 0: unknown
  std::optional<Sharding> sharding{};
};

struct Sampling {
  double seconds =
      60;  // compare everything if the double side is thought to do it within this time
  std::int64_t tokens =
      0;  // compare so many; 0: let the time decide, and then kSampledTokens of a longer one
  bool everything = false;  // whatever it takes
  RunHint run{};            // whose chunks end somewhere
};

inline constexpr std::int64_t kSampledTokens = 256;

// Layouts that the run may have had: the one that is known, or the usual ones on 2, 3, 4, 6, 8 and 16 ranks.
struct Cut {
  int ranks;
  Sharding sharding;
  std::int64_t chunks()
      const;  // that a sequence is cut into; 1 if neighbours are on different ranks
};
std::vector<Cut> usual_cuts(const RunHint& run);
// Tokens at which a chunk begins, but the first: chunks differ in length by one at most, the longer ones first, or all are
// rounded up.
std::set<std::int64_t> chunk_ends(std::int64_t N, std::int64_t chunks);

// In ascending order: first, middle and last; both sides of every end of a document and of the chunks of usual_cuts(); and
// tokens spread by the golden ratio, with which no
// layout has a stride in common. At least `count` of them, if there are as many. Of ends, which may be many, at most
// four times `count`, evenly.
std::vector<std::int64_t> sample_tokens(const Problem& problem, std::int64_t count,
                                        const RunHint& run);

}  // namespace sp
