// SPDX-License-Identifier: Apache-2.0
#include "experiments/simulate_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "experiments/bench_report.hpp"

namespace sp {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kRow =
    "{} {:<26} {:<10} {:>5} {:>9} {:<8} {:>10} {:>10} {:>6} {:>7} {:>9} {:>10} {:>7} {:>10} {:>9} "
    "{:>9} {:>9} {:>7}\n";

constexpr const char* kIdeal =
    "the predicted time of the same problem and algorithm on one device, whose memory is not "
    "limited, divided by P; above 100 where ranks have whole rectangles of the causal triangle, "
    "which run at a better rate than the triangle of the one device";

std::int64_t peak_bytes(const BenchRow& row) {
  std::int64_t most = 0;
  for (const PassRecord& pass : row.passes) most = std::max(most, pass.peak_bytes);
  return most;
}

std::string predicted_row(const BenchRow& row) {
  const Score s = score(row);
  const auto time_ms = [&](std::size_t pass) {
    return figure(pass < s.passes.size() ? 1e3 * s.passes[pass].median : BenchRow::kNone);
  };
  return fmt::format(
      kRow, ' ', row.algorithm, row.module.empty() ? "-" : row.module, row.ranks, row.tokens,
      name_of(row.status), time_ms(0), time_ms(1), number(100 * row.band, 0),
      number(s.percent_of_ideal, 1), number(s.exposed_percent, 1), figure(s.bytes_sent / 0x1p20),
      number(s.messages_sent, 0), figure(static_cast<double>(peak_bytes(row)) / 0x1p20),
      number(row.flops_imbalance, 3), number(s.busy_imbalance, 3),
      figure(s.gflops / 1e3 / row.ranks), number(s.percent_of_peak, 1));
}

std::string other_row(const BenchRow& row) {
  std::string reason = row.reason;
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  return fmt::format("  {:<26} {:<10} {:>5} {:>9} {:<8} {}\n", row.algorithm,
                     row.module.empty() ? "-" : row.module, row.ranks, row.tokens,
                     name_of(row.status), reason);
}

Json entry_of(const BenchRow& row) {
  Json entry{{"algorithm", row.algorithm}, {"module", row.module},
             {"ranks", row.ranks},         {"tokens", row.tokens},
             {"problem", row.problem},     {"status", name_of(row.status)}};
  if (row.passes.empty()) {
    entry["reason"] = row.reason;
    return entry;
  }
  const Score s = score(row);
  entry["forward_s"] = s.passes[0].median;
  if (s.passes.size() > 1) entry["backward_s"] = s.passes[1].median;
  entry["total_s"] = s.total.median;
  entry["band"] = row.band;
  entry["percent_of_ideal"] = s.percent_of_ideal;  // null where one device refuses
  entry["exposed_percent"] = s.exposed_percent;
  entry["bytes_sent"] = s.bytes_sent;
  entry["messages_sent"] = s.messages_sent;
  entry["peak_bytes"] = peak_bytes(row);
  entry["flops_imbalance"] = row.flops_imbalance;
  entry["busy_imbalance"] = s.busy_imbalance;
  entry["gflops"] = s.gflops;
  entry["percent_of_peak"] = s.percent_of_peak;
  return entry;
}

}  // namespace

std::string simulation_text(const BenchTable& table, const Platform& platform,
                            const Environment& environment) {
  std::string text = fmt::format(
      "# {}\n# simulated, nothing measured: platform {}, {}; commit {}{}\n"
      "# band: ±{:.0f} % on every time; {}\n#",
      table.command_line, platform.name, platform.title, environment.at("commit").substr(0, 8),
      environment.at("commit_dirty") == "yes" ? " (changed)" : "", 100 * platform.band,
      platform.band_source);
  for (const auto& [name, value] : table.config) text += fmt::format(" {} {};", name, value);
  text += fmt::format(
      "\n# %ideal: {}\n"
      "# time: of the last rank; exposed: time in waits, mean over ranks; sent, msgs: the busiest "
      "rank's, both passes; peak: memory beyond the shards, the fullest rank's; rate: per rank\n",
      kIdeal);
  text += fmt::format(kRow, '#', "algorithm", "module", "P", "N", "status", "fwd", "bwd", "±band",
                      "%ideal", "exposed", "sent", "msgs", "peak", "imb.flops", "imb.busy", "rate",
                      "%peak");
  text += fmt::format(kRow, '#', "", "", "1", "1", "", "ms", "ms", "%", "%", "%", "MiB", "1", "MiB",
                      "1", "1", "TFLOP/s", "%");
  for (const BenchRow& row : table.rows)
    text += row.passes.empty() ? other_row(row) : predicted_row(row);
  return text + status_line(table.rows, "predicted");
}

std::string simulation_json(const BenchTable& table, const Platform& platform,
                            const Environment& environment) {
  Json context{{"kind", table.kind},
               {"command", table.command_line},
               {"platform", platform.name},
               {"platform_title", platform.title},
               {"band", platform.band},
               {"band_source", platform.band_source},
               {"ideal", kIdeal}};
  for (const auto& [name, value] : table.config) context["config"][name] = value;
  for (const auto& [name, value] : environment.entries) context["environment"][name] = value;
  Json out{{"context", context}, {"predictions", Json::array()}};
  for (const BenchRow& row : table.rows) out["predictions"].push_back(entry_of(row));
  return out.dump(2) + "\n";
}

}  // namespace sp
