// SPDX-License-Identifier: Apache-2.0
#include "harness/results/bench_row.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace sp {
namespace {

// Of sorted samples, linear between neighbours.
double quantile(std::span<const double> sorted, double part) {
  const double position = part * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - std::floor(position)) * (sorted[above] - sorted[below]);
}

// Over all passes, per repetition.
std::vector<double> sum(const std::vector<PassRecord>& passes,
                        std::vector<double> PassRecord::* samples) {
  std::vector<double> total(passes.empty() ? 0 : (passes.front().*samples).size());
  for (const PassRecord& pass : passes) {
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += (pass.*samples)[i];
  }
  return total;
}

double sum(const std::vector<PassRecord>& passes, std::int64_t PassRecord::* cost) {
  std::int64_t total = 0;
  for (const PassRecord& pass : passes) total += pass.*cost;
  return static_cast<double>(total);
}

}  // namespace

std::string_view name_of(RowStatus status) {
  constexpr std::array<std::string_view, 5> kNames{"ok", "skipped", "oom", "failed", "unverified"};
  return kNames[static_cast<std::size_t>(status)];
}

std::string BenchRow::variant() const {
  return algorithm + "/" + backend + (module.empty() ? "" : "/" + module);
}

Summary summarize(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const double median = quantile(samples, 0.5);
  const double half_range = (quantile(samples, 0.75) - quantile(samples, 0.25)) / 2;
  return {median, 100 * half_range / median, samples.front()};
}

Score score(const BenchRow& row) {
  Score result;
  if (row.passes.empty()) return result;
  for (const PassRecord& pass : row.passes) result.passes.push_back(summarize(pass.time_s));
  const std::vector<double> times = sum(row.passes, &PassRecord::time_s);
  std::vector<double> exposed = sum(row.passes, &PassRecord::waiting_s);
  for (std::size_t i = 0; i < exposed.size(); ++i) exposed[i] *= 100 / times[i];
  result.total = summarize(times);
  result.exposed_percent = summarize(std::move(exposed)).median;
  result.busy_imbalance = summarize(row.busy_imbalance).median;
  result.bytes_sent = sum(row.passes, &PassRecord::bytes_sent);
  result.messages_sent = sum(row.passes, &PassRecord::messages_sent);
  const double flops = sum(row.passes, &PassRecord::flops);
  result.gflops = flops / result.total.median / 1e9;
  result.percent_of_peak =
      100 * 1e9 * result.gflops / (std::min(row.ranks, row.cores) * row.peak_flops);
  const std::vector<double> communicating = sum(row.passes, &PassRecord::communicating_s);
  if (const double busy = summarize(communicating).median; busy > 0) {
    const double waiting = summarize(sum(row.passes, &PassRecord::waiting_s)).median;
    result.bus_bandwidth = result.bytes_sent / busy;
    result.overlap_percent = 100 * std::max(0.0, 1 - waiting / busy);
  }
  if (row.one_rank.empty()) return result;
  const double alone = summarize(sum(row.one_rank, &PassRecord::time_s)).median;
  const double ideal = alone / std::min(row.ranks, row.cores);
  result.percent_of_ideal = 100 * ideal / result.total.median;
  result.flops_ratio = flops / sum(row.one_rank, &PassRecord::flops);
  return result;
}

}  // namespace sp
