// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/sample.hpp"

#include <algorithm>
#include <cmath>
#include <set>

namespace sp {
namespace {

// Tokens before which something ends.
std::set<std::int64_t> ends_of(const Problem& problem, const RunHint& run) {
  const std::int64_t N = problem.shape.N;
  const std::vector<std::int32_t>& ids = problem.mask.segment_ids;
  std::set<std::int64_t> ends;
  for (std::size_t i = 1; i < ids.size(); ++i)
    if (ids[i] != ids[i - 1]) ends.insert(static_cast<std::int64_t>(i) % N);
  for (const Cut& cut : usual_cuts(run)) ends.merge(chunk_ends(N, cut.chunks()));
  return ends;
}

}  // namespace

std::int64_t Cut::chunks() const {
  return sharding == Sharding::kStriped ? 1 : sharding == Sharding::kZigzag ? 2 * ranks : ranks;
}

std::vector<Cut> usual_cuts(const RunHint& run) {
  std::vector<Cut> cuts;
  for (const int P :
       run.ranks > 0 ? std::vector<int>{run.ranks} : std::vector<int>{2, 3, 4, 6, 8, 16}) {
    for (const Sharding sharding : {Sharding::kContiguous, Sharding::kZigzag, Sharding::kStriped})
      if (!run.sharding || *run.sharding == sharding) cuts.push_back({P, sharding});
  }
  return cuts;
}

std::set<std::int64_t> chunk_ends(std::int64_t N, std::int64_t chunks) {
  const std::int64_t shorter = N / chunks, longer = (N + chunks - 1) / chunks, extra = N % chunks;
  std::set<std::int64_t> ends;
  for (std::int64_t c = 1; c < chunks; ++c) {
    ends.insert(c * shorter + std::min(c, extra));
    ends.insert(std::min(N - 1, c * longer));
  }
  return ends;
}

std::vector<std::int64_t> sample_tokens(const Problem& problem, std::int64_t count,
                                        const RunHint& run) {
  constexpr double kGolden = 0.6180339887498949;
  const std::int64_t N = problem.shape.N;
  if (count >= N) count = N;
  std::set<std::int64_t> tokens;
  const auto add = [&](std::int64_t token) {
    if (token >= 0 && token < N) tokens.insert(token);
  };
  for (const std::int64_t token : {std::int64_t{0}, N / 2, N - 1}) add(token);
  const std::set<std::int64_t> ends = ends_of(problem, run);
  const std::int64_t step = 1 + std::ssize(ends) / (4 * count + 1);
  std::int64_t number = 0;
  for (const std::int64_t end : ends) {
    if (number++ % step != 0) continue;
    add(end - 1);
    add(end);
  }
  for (int i = 1; std::ssize(tokens) < count; ++i)
    add(static_cast<std::int64_t>(std::fmod(kGolden * i, 1.0) * static_cast<double>(N)));
  return {tokens.begin(), tokens.end()};
}

}  // namespace sp
