// The catalogue names every algorithm, and memory grows as it claims. The numbers of its example are
// generated: tests/cli/documents.py.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "harness/run/dry_run.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

std::string catalogue() {
  std::ifstream file(SP_CATALOGUE);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Catalogue : public Everyone {};

TEST_P(Catalogue, HasAParagraphAndAPaper) {
  const Algorithm& algorithm = *GetParam();
  const std::string text = catalogue(), id = algorithm.id, paper = algorithm.paper;
  EXPECT_NE(text.find("\n| `" + id + "` | "), std::string::npos) << "no row";
  const std::size_t one_by_one = text.find("## One by one");
  ASSERT_NE(one_by_one, std::string::npos);
  EXPECT_NE(text.find("`" + id + "`", one_by_one), std::string::npos) << "no paragraph";
  const std::size_t arxiv = paper.find("arXiv:");
  if (arxiv != std::string::npos) {
    const std::size_t begin = arxiv + 6, end = paper.find(',', begin);  // a section may follow
    EXPECT_NE(text.find(paper.substr(begin, end - begin)), std::string::npos) << paper;
  }
}

// Peak of the rank with most, backward, at c tokens per rank.
double peak(const Algorithm& algorithm, std::int64_t c, const World& world) {
  Problem problem = problem_for({&algorithm}, {1, c * world.size, 64, 64, 4, 4});
  if (algorithm.family == Family::kHybrid) problem.layers = "LN";
  std::int64_t most = 0;
  for (int rank = 0; rank < world.size; ++rank)
    most = std::max(most, dry_run(algorithm, problem, world, rank).backward.done.peak_bytes);
  return static_cast<double>(most);
}

// The memory column: what four times the ranks do at as many tokens each, and what twice the tokens
// do on as many ranks.
TEST_P(Catalogue, MemoryGrowsAsItSays) {
  const Algorithm& algorithm = *GetParam();
  const std::string text = catalogue();
  const std::size_t row = text.find("\n| `" + std::string(algorithm.id) + "` | ");
  const std::size_t begin = text.find("| $O(", row) + 2, end = text.find(" |", begin);
  const std::string claim = text.substr(begin, end - begin);
  const double with_ranks = peak(algorithm, 512, {16, 2}) / peak(algorithm, 512, {4, 2});
  const double with_tokens = peak(algorithm, 1024, {8, 2}) / peak(algorithm, 512, {8, 2});
  SCOPED_TRACE(fmt::format("{}: {:.2f} times with the ranks, {:.2f} with the tokens", claim,
                           with_ranks, with_tokens));
  const bool square = claim == "$O(N^2/P)$", whole = claim == "$O(N)$";
  EXPECT_EQ(with_ranks > 2, square || whole);
  EXPECT_EQ(with_tokens > 2.5, square);
  EXPECT_GT(with_tokens, 1.5);
  EXPECT_EQ(with_ranks > 1.25, square || whole);
  const bool of_states = claim == "$O(N/P + PS)$", of_row = claim == "$O(NU/P)$";
  EXPECT_EQ(peak(algorithm, 4, {64, 2}) / peak(algorithm, 4, {16, 2}) > 2,
            of_states || square || whole);
  EXPECT_EQ(peak(algorithm, 512, {16, 16}) / peak(algorithm, 512, {16, 1}) > 4, of_row);
}

INSTANTIATE_TEST_SUITE_P(Registry, Catalogue, testing::ValuesIn(algorithms()), id_of);

}  // namespace
}  // namespace sp::test
