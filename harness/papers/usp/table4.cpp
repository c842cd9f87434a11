// USP, table 4: meshes of Ulysses and ring on 8 A100 with NVLink, and what its rows of 128K are.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/usp/rows.hpp"

namespace sp {
namespace {

constexpr std::int64_t kShort = 32 * 1024, kLong = 128 * 1024;

// A reading of the rows of 128K: other lengths or passes than the table says.
struct Reading {
  const char* name;
  std::int64_t tokens;
  bool backward;
};
constexpr Reading kReadings[] = {{"256K tokens, forward", 2 * kLong, false},
                                 {"128K tokens, forward and backward", kLong, true}};

void add_reading(const Reading& reading, const PaperTable& table, const Platform& platform,
                 ReplayResult& result) {
  double worst = 0, sum = 0;
  int rows = 0;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.number(row, "table") != 4 || table.text(row, "tokens") != "128K") continue;
    const int ulysses = static_cast<int>(table.number(row, "ulysses"));
    const Problem problem =
        softmax_problem({1, reading.tokens, 32, 8, 128, 128}, DType::kBF16, true);
    for (const auto& [column, id] :
         {std::pair{"basic_ring", "usp/contiguous"}, std::pair{"lb_ring", "usp/zigzag"}}) {
      const LayerSeconds seconds =
          layer_seconds(platform, id, problem, {kUspRanks, ulysses, 1}, reading.backward);
      const double rate = 1 / (seconds.forward + seconds.backward);
      const double off = rate / table.number(row, column) - 1;
      worst = std::max(worst, std::abs(off));
      sum += off;
      ++rows;
      ReplayRow shown =
          context_row(fmt::format("rows of 128K read as {}, ulysses {}", reading.name, ulysses),
                      column, "1/s", rate, Provenance::kSimulated);
      shown.band = platform.band;
      result.rows.push_back(shown);
    }
  }
  if (rows == 0) return;
  result.findings.push_back(
      fmt::format("Read as {}, the 8 rates of 128K are off by {:+.0f} % on average and by {:.0f} % "
                  "at most.",
                  reading.name, 100 * sum / rows, 100 * worst));
}

ReplayResult run(const ReplayContext& context) {
  const PaperTable table = table_of(context.config);
  const Platform platform = context.platform("platform");
  const std::vector<MeasuredRow> measured = usp_rows(table, 4);
  const std::vector<ReplayRow> rows = replay_rows(measured, platform, context.progress);
  ReplayResult result;
  result.rows = rows;
  result.findings = {
      fmt::format("{}, 32K: {}.", platform.name, residuals_of(measured, rows)),
      "The rows of 128K are not of 128K tokens, forward: they would be 49 TFLOP/s per "
      "A100, where the rows of 32K reach 150 and an L20, with 38 % of its peak, "
      "reaches 96 (table 3)."};
  for (const Reading& reading : kReadings) add_reading(reading, table, platform, result);
  result.findings.push_back(
      "The table cannot tell these readings apart; its source does not say which one was run.");
  const auto rate = [&](std::int64_t tokens, int ulysses, const char* ring) {
    return usp_row(rows, usp_mesh(tokens, ulysses), ring).ours;
  };
  for (const std::int64_t tokens : {kShort, kLong}) {
    const auto unbalanced = [&](int ulysses) { return rate(tokens, ulysses, "basic_ring"); };
    const bool falls = unbalanced(8) > unbalanced(4) && unbalanced(4) > unbalanced(2) &&
                       unbalanced(2) > unbalanced(1);
    result.rows.push_back(claim_row(fmt::format("{}K", tokens / 1024),
                                    "an unbalanced ring is slower the more ranks it has", falls,
                                    Provenance::kSimulated, "It is not.", Grade::kPrinted));
  }
  const auto [slowest, fastest] = std::minmax(
      {rate(kShort, 8, "lb_ring"), rate(kShort, 4, "lb_ring"), rate(kShort, 2, "lb_ring")});
  result.rows.push_back(claim_row(
      "32K", "with a balanced ring of up to 4 ranks the mesh matters less than 10 %",
      fastest < 1.1 * slowest, Provenance::kSimulated, "It matters more.", Grade::kPrinted));
  result.assumption =
      "Kernels and merges as fitted on the zigzag README, whose code USP calls; no row of this "
      "table was fitted. The band is the largest error at 32K and in that README.";
  return result;
}

}  // namespace

const ReplayItem kUspTable4{"usp/table4", "USP: attention forward on 8 A100, NVLink",
                            "Fang, Zhao 2024, arXiv:2405.07719, table 4", run};

}  // namespace sp
