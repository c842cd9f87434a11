// What every algorithm sends, held against a record: a text that is written otherwise sends what it
// sent before.
//
// A line is an algorithm (and module) on a mesh of nodes x ranks; then for no mask, causal, and
// causal with a window of 17: bytes forward, bytes backward, messages of both, flops of both, summed
// over the ranks; at the end a digest of the same numbers rank by rank. bf16, 101 tokens, batch 2,
// 24 query heads on 12 key heads of 8.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

constexpr World kWorlds[] = {{1, 1}, {2, 1}, {3, 3}, {4, 2}, {6, 3}, {8, 2}, {12, 4}};

std::uint64_t mixed(std::uint64_t digest, std::int64_t number) {
  digest = (digest ^ static_cast<std::uint64_t>(number)) * 0x9e3779b97f4a7c15u;
  return digest ^ (digest >> 29);
}

std::string line_of(const Subject& subject, const World& world) {
  const Algorithm& algorithm = *subject.algorithm;
  Problem problem = problem_for(subject, {2, 101, 24, 12, 8, 8});
  problem.dtype = DType::kBF16;
  std::string line =
      fmt::format("{} {}x{}", name_of(subject), world.size / world.node_size, world.node_size);
  std::uint64_t digest = 0;
  for (const std::int64_t window : {-1, 0, 17}) {  // -1: no mask at all
    problem.mask.causal = window >= 0;
    problem.mask.window = std::max<std::int64_t>(0, window);
    line += " |";
    if (!algorithm.supports(problem, world)) {
      line += " refused";
      continue;
    }
    const Layout layout(algorithm.sharding, problem.shape.N, world.size);
    std::int64_t sums[4] = {};
    for (int rank = 0; rank < world.size; ++rank) {
      const auto [f, b] = algorithm.cost(problem, layout, world, rank);
      const std::int64_t mine[] = {f.bytes_sent, b.bytes_sent, f.messages_sent + b.messages_sent,
                                   f.flops + b.flops};
      for (std::size_t i = 0; i < 4; ++i) {
        sums[i] += mine[i];
        digest = mixed(digest, mine[i]);
      }
    }
    for (const std::int64_t sum : sums) line += fmt::format(" {}", sum);
  }
  return line + fmt::format(" | {:016x}", digest);
}

TEST(Traffic, IsThatOfTheRecord) {
  std::ifstream file(SP_TRAFFIC_RECORD);
  std::set<std::string> record;
  for (std::string line; std::getline(file, line);) record.insert(line);
  std::string missing;
  std::size_t lines = 0;
  for (const Subject& subject : subjects()) {
    for (const World& world : kWorlds) {
      const std::string line = line_of(subject, world);
      ++lines;
      if (!record.contains(line)) missing += line + "\n";
    }
  }
  // A new algorithm's lines are added on demand; those of known ones are never written anew.
  const bool only_new =
      record.size() + static_cast<std::size_t>(std::ranges::count(missing, '\n')) == lines;
  if (std::getenv("SP_RECORD_NEW") != nullptr && only_new)
    std::ofstream(SP_TRAFFIC_RECORD, std::ios::app) << missing;
  EXPECT_EQ(missing, "") << "lines that " << SP_TRAFFIC_RECORD << " has otherwise";
  EXPECT_EQ(record.size(), lines) << "the record has lines of nobody";
}

}  // namespace
}  // namespace sp::test
