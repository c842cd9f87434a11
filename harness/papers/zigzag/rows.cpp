// The README benchmark of ring-flash-attention: 8K tokens per device, causal, grouped heads.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/papers/counted.hpp"
#include "harness/papers/measured.hpp"

namespace sp {
namespace {

constexpr int kRanks = 8;

Problem readme_problem(std::int64_t tokens) {
  return softmax_problem({1, tokens, 32, 8, 128, 128}, DType::kBF16, true);
}

double rate(const LayerSeconds& seconds) { return 1 / (seconds.forward + seconds.backward); }

}  // namespace

std::vector<MeasuredRow> zigzag_rows(const PaperTable& table, const std::string& hardware) {
  struct Column {
    const char* name;
    const char* algorithm;  // null: one device
    bool fitted;
  };
  constexpr Column kColumns[] = {{"single", nullptr, true},
                                 {"ring", "ring/contiguous", true},
                                 {"zigzag", "ring/zigzag", false},
                                 {"third_rate", "ring/striped", false}};
  std::vector<MeasuredRow> rows;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    // Packed documents: kernels are charged for the causal band, not for segments.
    if (table.text(row, "api") != "batch") continue;
    if (table.text(row, "hardware").find(hardware) == std::string::npos) continue;
    const bool backward = table.text(row, "mode") != "fwd";
    for (const Column& column : kColumns) {
      const std::string id = column.algorithm == nullptr ? "" : column.algorithm;
      const auto predict = [backward, id](const Platform& platform) {
        if (id.empty())
          return rate(single_device_seconds(platform, readme_problem(8192), backward));
        return rate(layer_seconds(platform, id, readme_problem(kRanks * 8192), {kRanks, kRanks, 1},
                                  backward));
      };
      rows.push_back({fmt::format("{}, {}", table.text(row, "hardware"), table.text(row, "mode")),
                      id.empty() ? "one device" : id, "1/s", cell(table, row, column.name), predict,
                      column.fitted, ""});
    }
  }
  return rows;
}

}  // namespace sp
