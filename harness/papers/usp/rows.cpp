// USP tables 3 and 4: attention forward on meshes of Ulysses and ring.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/usp/rows.hpp"

#include <fmt/format.h>

#include "harness/papers/counted.hpp"

namespace sp {
namespace {

// The rows of 128K in table 4 do not belong to 128K tokens, forward (usp/table4).
constexpr const char* kNotQuadratic =
    "The table itself is inconsistent: four times the tokens are 16 times the work, but its "
    "rates are 39 to 53 times lower.";

}  // namespace

std::string usp_mesh(std::int64_t tokens, int ulysses) {
  return fmt::format("{}K, ulysses {} x ring {}", tokens / 1024, ulysses, kUspRanks / ulysses);
}

std::vector<MeasuredRow> usp_rows(const PaperTable& table, int number) {
  constexpr std::int64_t kLongest = 128 * 1024;
  std::vector<MeasuredRow> rows;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (static_cast<int>(table.number(row, "table")) != number) continue;
    const auto whole = [&](const char* column) {
      return static_cast<std::int64_t>(table.number(row, column));
    };
    const std::int64_t tokens = whole("tokens"), heads = whole("heads"), size = whole("head_size");
    const Problem problem =
        softmax_problem({whole("batch"), tokens, heads, heads / whole("group_size"), size, size},
                        DType::kBF16, true);
    const int ulysses = static_cast<int>(whole("ulysses"));
    if (ulysses * whole("ring") != kUspRanks)
      throw Error(ErrorKind::kUsage,
                  fmt::format("the table of USP has a mesh of {} x {}; allowed: of {} ranks",
                              ulysses, whole("ring"), kUspRanks));
    const bool end = number == 3 && tokens == kLongest && (ulysses == kUspRanks || ulysses == 1);
    for (const auto& [column, algorithm] :
         {std::pair{"basic_ring", "usp/contiguous"}, std::pair{"lb_ring", "usp/zigzag"}}) {
      const std::string id = algorithm;
      const auto predict = [problem, ulysses, id](const Platform& platform) {
        return 1 / layer_seconds(platform, id, problem, {kUspRanks, ulysses, 1}, false).forward;
      };
      rows.push_back({fmt::format("{}, {}", table.text(row, "hardware"), usp_mesh(tokens, ulysses)),
                      column, "1/s", cell(table, row, column), predict, end,
                      number == 4 && tokens == kLongest ? kNotQuadratic : ""});
    }
  }
  return rows;
}

}  // namespace sp
