// SPDX-License-Identifier: Apache-2.0
#include "experiments/bench_report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

namespace sp {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kRow =
    "{} {:<26} {:<10} {:<8} {:>4} {:>9} {:<10} {:>10} {:>5} {:>10} {:>5} {:>7} {:>10} {:>7} {:>9} "
    "{:>9} {:>9} {:>9}\n";

std::string measured_row(const BenchRow& row) {
  const Score s = score(row);
  const auto pass = [&](std::size_t index) {
    return index < s.passes.size() ? s.passes[index] : Summary{};
  };
  return fmt::format(kRow, ' ', row.algorithm, row.module.empty() ? "-" : row.module, row.backend,
                     row.ranks, row.tokens, name_of(row.status), figure(1e3 * pass(0).median),
                     number(pass(0).spread_percent, 1), figure(1e3 * pass(1).median),
                     number(pass(1).spread_percent, 1), number(s.percent_of_ideal, 1),
                     figure(s.bytes_sent / 0x1p20), number(s.messages_sent, 0),
                     number(s.exposed_percent, 1), number(row.flops_imbalance, 3),
                     number(s.busy_imbalance, 3), figure(s.gflops));
}

std::string other_row(const BenchRow& row) {
  std::string reason = row.reason;
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  return fmt::format("  {:<26} {:<10} {:<8} {:>4} {:>9} {:<10} {}\n", row.algorithm,
                     row.module.empty() ? "-" : row.module, row.backend, row.ranks, row.tokens,
                     row.status == RowStatus::kFailed ? "FAILED" : name_of(row.status), reason);
}

// Which peak a real device's is; that of a simulated one is its platform's.
std::string peak_clock(const BenchRow& row) {
  if (std::isnan(row.peak_clock_hz)) return "";
  return fmt::format(
      ", at its highest clock ({:.0f} MHz: {} TFLOP/s; data sheets may count at a "
      "lower one)",
      row.peak_clock_hz / 1e6, figure(row.peak_flops / 1e12));
}

// What only devices can tell of the rows above; nothing elsewhere.
std::string device_text(const BenchTable& table) {
  constexpr const char* kDeviceRow = "{} {:<26} {:<10} {:>4} {:>4} {:>9} {:>9} {:>7} {:>9} {:>8}\n";
  std::string text;
  for (const BenchRow& row : table.rows) {
    if (row.passes.empty() || std::isnan(row.peak_flops)) continue;
    if (text.empty()) {
      text = "# devices: %peak of the tensor cores or, in f32, of plain arithmetic" +
             peak_clock(row) +
             "; busbw: bytes sent by the busiest rank / time in communication (nccl-tests' "
             "definition); overlap: communication that computation hides; fewer GPUs than P: ranks "
             "share them\n";
      text += fmt::format(kDeviceRow, '#', "algorithm", "module", "P", "GPUs", "N", "TFLOP/s",
                          "%peak", "busbw", "overlap");
      text += fmt::format(kDeviceRow, '#', "", "", "1", "1", "1", "per GPU", "%", "GB/s", "%");
    }
    const Score s = score(row);
    text += fmt::format(
        kDeviceRow, ' ', row.algorithm, row.module.empty() ? "-" : row.module, row.ranks, row.cores,
        row.tokens, figure(s.gflops / 1e3 / std::min(row.ranks, row.cores)),
        figure(s.percent_of_peak), figure(s.bus_bandwidth / 1e9), number(s.overlap_percent, 1));
  }
  return text;
}

// Of the first core that tells; 0 if none does.
long mhz_per_cpu() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("cpu MHz"))
      return std::lround(std::strtod(line.substr(line.find(':') + 1).c_str(), nullptr));
  }
  return 0;
}

// The fields that readers of Google Benchmark's files know, then ours.
Json context_of(const BenchTable& table, const Environment& environment) {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  std::error_code none;
  std::array<double, 3> load{};
  ::getloadavg(load.data(), static_cast<int>(load.size()));
  Json context{{"date", environment.at("created_utc")},
               {"host_name", host.data()},
               {"executable", std::filesystem::read_symlink("/proc/self/exe", none).string()},
               {"num_cpus", ::sysconf(_SC_NPROCESSORS_ONLN)},
               {"mhz_per_cpu", mhz_per_cpu()},
               {"load_avg", load},
               {"library_version", environment.at("software_version")},
               {"library_build_type", environment.at("build_type")},
               {"json_schema_version", 1},
               {"git_sha", environment.at("commit")},
               {"git_is_dirty", environment.at("commit_dirty")},
               {"command", table.command_line},
               {"seed", table.seed},
               {"ideal", kIdealInWords}};
  for (const auto& [name, value] : table.config) context["config"][name] = value;
  for (const auto& [name, value] : environment.entries) context["environment"][name] = value;
  return context;
}

// What every entry of a row begins with.
Json entry_of(const BenchRow& row, const std::string& name, const char* run_type) {
  return {{"name", name},           {"run_name", name},
          {"run_type", run_type},   {"algorithm", row.algorithm},
          {"backend", row.backend}, {"module", row.module},
          {"ranks", row.ranks},     {"tokens", row.tokens},
          {"problem", row.problem}, {"status", name_of(row.status)}};
}

// The counters of a row over all its passes, beside the times of one.
void add_counters(Json& entry, const BenchRow& row, const PassRecord& pass, const Score& s) {
  entry["bytes_sent"] = pass.bytes_sent;
  entry["messages_sent"] = pass.messages_sent;
  entry["flops"] = pass.flops;
  entry["peak_bytes"] = pass.peak_bytes;
  entry["percent_of_ideal"] = s.percent_of_ideal;
  entry["flops_ratio"] = s.flops_ratio;
  entry["exposed_percent"] = s.exposed_percent;
  entry["flops_imbalance"] = row.flops_imbalance;
  entry["busy_imbalance"] = s.busy_imbalance;
  entry["gflops"] = s.gflops;
  if (!std::isnan(row.peak_flops)) {
    entry["percent_of_peak"] = s.percent_of_peak;
    entry["bus_bandwidth"] = s.bus_bandwidth;
    entry["overlap_percent"] = s.overlap_percent;
  }
  entry["cores"] = row.cores;
  entry["worst_ratio"] = row.worst_ratio;
}

void add_measured(Json& benchmarks, const BenchRow& row) {
  const Score s = score(row);
  for (std::size_t pass = 0; pass < row.passes.size(); ++pass) {
    const PassRecord& record = row.passes[pass];
    const std::string name = fmt::format("{}/P:{}/N:{}/{}", row.variant(), row.ranks, row.tokens,
                                         pass == 0 ? "forward" : "backward");
    for (std::size_t i = 0; i < record.time_s.size(); ++i) {
      Json entry = entry_of(row, name, "iteration");
      entry["repetitions"] = record.time_s.size();
      entry["repetition_index"] = i;
      entry["threads"] = 1;
      entry["iterations"] = 1;
      entry["real_time"] = 1e3 * record.time_s[i];
      entry["cpu_time"] = 1e3 * record.cpu_s[i];
      entry["time_unit"] = "ms";
      entry["waiting"] = 1e3 * record.waiting_s[i];
      benchmarks.push_back(std::move(entry));
    }
    Json entry = entry_of(row, name + "_median", "aggregate");
    entry["run_name"] = name;
    entry["aggregate_name"] = "median";
    entry["aggregate_unit"] = "time";
    entry["repetitions"] = record.time_s.size();
    entry["threads"] = 1;
    entry["iterations"] = record.time_s.size();
    entry["real_time"] = 1e3 * s.passes[pass].median;
    entry["cpu_time"] = 1e3 * summarize(record.cpu_s).median;
    entry["time_unit"] = "ms";
    entry["spread_percent"] = s.passes[pass].spread_percent;
    entry["least"] = 1e3 * s.passes[pass].least;
    entry["waiting"] = 1e3 * summarize(record.waiting_s).median;
    add_counters(entry, row, record, s);
    benchmarks.push_back(std::move(entry));
  }
}

void add_other(Json& benchmarks, const BenchRow& row) {
  Json entry =
      entry_of(row, fmt::format("{}/P:{}/N:{}", row.variant(), row.ranks, row.tokens), "iteration");
  const bool skipped = row.status == RowStatus::kSkipped;
  entry[skipped ? "skipped" : "error_occurred"] = true;
  entry[skipped ? "skip_message" : "error_message"] = row.reason;
  benchmarks.push_back(std::move(entry));
}

}  // namespace

std::string number(double value, int decimals) {
  if (std::isnan(value)) return "-";
  std::string text = fmt::format("{:.{}f}", value, decimals);
  const bool zero = text.find_first_of("123456789") == std::string::npos;
  return zero && text.front() == '-' ? text.substr(1) : text;
}

std::string figure(double value) {
  if (std::isnan(value)) return "-";
  const double size = std::abs(value);
  return number(value, size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
}

const char* const kIdealInWords =
    "the median time of the same problem on one rank with the same algorithm (equal work), divided "
    "by the number of ranks, or of cores if there are fewer; 100 % is reached when P ranks are "
    "that "
    "fast";

std::string status_line(const std::vector<BenchRow>& rows, const char* done) {
  std::array<int, std::size(kRowStatuses)> counts{};
  for (const BenchRow& row : rows) ++counts[static_cast<std::size_t>(row.status)];
  std::string text = fmt::format("# {} of {} rows {}", counts[0], rows.size(), done);
  for (std::size_t i = 1; i < counts.size(); ++i) {
    if (counts[i] > 0) text += fmt::format(", {} {}", counts[i], name_of(kRowStatuses[i]));
  }
  return text + "\n";
}

std::string bench_text(const BenchTable& table, const Environment& environment) {
  std::string text = fmt::format(
      "# {}\n# cores {}; {}; commit {}{}; {}\n", table.command_line, environment.at("cores"),
      environment.at("cpu"), environment.at("commit").substr(0, 8),
      environment.at("commit_dirty") == "yes" ? " (changed)" : "", environment.at("build_type"));
  text += "#";
  for (const auto& [name, value] : table.config) text += fmt::format(" {} {};", name, value);
  text += fmt::format(" seed {}\n", table.seed);
  text += fmt::format("# %ideal: {}\n", kIdealInWords);
  text +=
      "# time: median over repetitions of the slowest rank; ±%: half the interquartile range; "
      "sent, "
      "msgs: the busiest rank's, both passes\n"
      "# exposed: time in waits, mean over ranks, of the repetition; imbalance: largest / mean "
      "over "
      "ranks, of flops and of time outside waits\n";
  text += fmt::format(kRow, '#', "algorithm", "module", "backend", "P", "N", "status", "fwd", "±%",
                      "bwd", "±%", "%ideal", "sent", "msgs", "exposed", "imb.flops", "imb.busy",
                      "rate");
  text += fmt::format(kRow, '#', "", "", "", "1", "1", "", "ms", "%", "ms", "%", "%", "MiB", "1",
                      "%", "1", "1", "GFLOP/s");
  for (const BenchRow& row : table.rows)
    text += row.passes.empty() ? other_row(row) : measured_row(row);
  text += device_text(table);
  return text + status_line(table.rows, "measured");
}

std::string bench_json(const BenchTable& table, const Environment& environment) {
  Json out{{"context", context_of(table, environment)}, {"benchmarks", Json::array()}};
  for (const BenchRow& row : table.rows) {
    row.passes.empty() ? add_other(out["benchmarks"], row) : add_measured(out["benchmarks"], row);
  }
  return out.dump(2) + "\n";
}

}  // namespace sp
