// The catalogue names every algorithm, and its example is what cost() says.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <fstream>
#include <iterator>

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

// MiB of the rank with most, and the work of the busiest rank over the mean.
TEST_P(Catalogue, PrintsTheNumbersOfItsExample) {
  const Algorithm& algorithm = *GetParam();
  const World world{8, 4};
  Problem problem = problem_for({&algorithm}, {1, 65536, 32, 8, 128, 128});
  problem.dtype = DType::kBF16;
  problem.mask.causal = algorithm.family != Family::kProjectedSoftmax;
  if (algorithm.family == Family::kProjectedSoftmax) problem.projected = 256;
  if (algorithm.family == Family::kHybrid) problem.layers = "LLLN";
  const Layout layout(algorithm.sharding, problem.shape.N, world.size);
  std::int64_t most[5] = {}, flops = 0;
  for (int rank = 0; rank < world.size; ++rank) {
    const Cost cost = algorithm.cost(problem, layout, world, rank);
    const std::int64_t mine[5] = {cost.forward.bytes_sent, cost.backward.bytes_sent,
                                  cost.forward.peak_bytes, cost.backward.peak_bytes,
                                  cost.forward.flops};
    for (int i = 0; i < 5; ++i) most[i] = std::max(most[i], mine[i]);
    flops += cost.forward.flops;
  }
  std::string row = fmt::format("| `{}` |", algorithm.id);
  for (int i = 0; i < 4; ++i)
    row += fmt::format(" {:.0f} |", static_cast<double>(most[i]) / 0x1p20);
  row += fmt::format(" {:.2f} |\n",
                     static_cast<double>(most[4]) * world.size / static_cast<double>(flops));
  EXPECT_NE(catalogue().find(row), std::string::npos) << "the row should be " << row;
}

INSTANTIATE_TEST_SUITE_P(Registry, Catalogue, testing::ValuesIn(algorithms()), id_of);

}  // namespace
}  // namespace sp::test
