// USP tables 3 and 4: attention forward on meshes of Ulysses and ring.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/papers/counted.hpp"
#include "harness/papers/measured.hpp"

namespace sp {
namespace {

// The rows of 128K in table 4 do not belong to 128K tokens, forward (usp/table4).
constexpr const char* kNotQuadratic =
    "The table itself is inconsistent: four times the tokens are 16 times the work, but its "
    "rates are 39 to 53 times lower.";

}  // namespace

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
    const int ranks = ulysses * static_cast<int>(whole("ring"));
    const bool end = number == 3 && tokens == kLongest && (ulysses == ranks || ulysses == 1);
    for (const auto& [column, algorithm] :
         {std::pair{"basic_ring", "usp/contiguous"}, std::pair{"lb_ring", "usp/zigzag"}}) {
      const std::string id = algorithm;
      const auto predict = [problem, ranks, ulysses, id](const Platform& platform) {
        return 1 / layer_seconds(platform, id, problem, {ranks, ulysses, 1}, false).forward;
      };
      rows.push_back({fmt::format("{}, {}K, ulysses {} x ring {}", table.text(row, "hardware"),
                                  tokens / 1024, ulysses, ranks / ulysses),
                      column, "1/s", cell(table, row, column), predict, end,
                      number == 4 && tokens == kLongest ? kNotQuadratic : ""});
    }
  }
  return rows;
}

}  // namespace sp
