// What `seqpar bench` measures of one algorithm on one problem and one number of ranks, and the
// numbers that follow from it (harness/README.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sp {

// Only kOk has times: a speed is told only of a build whose correctness check passed.
enum class RowStatus : std::uint8_t { kOk, kSkipped, kOom, kFailed, kUnverified };
constexpr RowStatus kRowStatuses[] = {RowStatus::kOk, RowStatus::kSkipped, RowStatus::kOom,
                                      RowStatus::kFailed, RowStatus::kUnverified};
std::string_view name_of(RowStatus status);

// One direction. Times are per repetition, in seconds; costs are of one repetition.
struct PassRecord {
  std::vector<double> time_s{};     // of the slowest rank
  std::vector<double> waiting_s{};  // in waits for messages, mean over ranks
  std::vector<double> cpu_s{};      // of all ranks together
  // In communication, hidden or not, mean over ranks; empty where a back-end cannot tell.
  std::vector<double> communicating_s{};
  std::int64_t bytes_sent = 0;  // the largest rank's
  std::int64_t messages_sent = 0;
  std::int64_t peak_bytes = 0;
  std::int64_t flops = 0;  // of all ranks together
};

struct BenchRow {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  std::string algorithm{}, backend{}, module{};  // module: empty for softmax attention
  std::int64_t tokens = 0;
  int ranks = 1;
  std::string problem{};  // one line
  RowStatus status = RowStatus::kUnverified;
  std::string reason{};                  // one sentence, unless kOk
  int cores = 0;                         // that the ranks may use
  std::vector<PassRecord> passes{};      // forward, then backward unless left out; empty unless kOk
  std::vector<PassRecord> one_rank{};    // the same problem and algorithm on one rank; empty: none
  std::vector<double> busy_imbalance{};  // per repetition: time outside waits, largest / mean
  double flops_imbalance = kNone;        // largest / mean over ranks
  double peak_flops = kNone;             // per second, of one rank's device; NaN: unknown
  double peak_clock_hz = kNone;          // at which the device has its peak; NaN: no matter
  double band = kNone;                   // of a prediction: relative error to expect
  double max_error = kNone, limit = kNone, worst_ratio = kNone;  // of the correctness check

  std::string variant() const;  // algorithm/backend, with /module where there is one
};

struct Summary {
  double median = BenchRow::kNone;
  double spread_percent = BenchRow::kNone;  // half the interquartile range, of the median
  double least = BenchRow::kNone;
};
Summary summarize(std::vector<double> samples);  // all NaN for no samples

// NaN where there is nothing to tell.
struct Score {
  std::vector<Summary> passes;  // times in seconds
  Summary total;                // of a repetition: all passes
  double percent_of_ideal = BenchRow::kNone;
  double flops_ratio = BenchRow::kNone;      // of all ranks / on one rank: 1 is equal work
  double exposed_percent = BenchRow::kNone;  // waiting / time
  double busy_imbalance = BenchRow::kNone;
  double bytes_sent = BenchRow::kNone;  // the largest rank's, all passes
  double messages_sent = BenchRow::kNone;
  double gflops = BenchRow::kNone;  // 1e9 flops per second, all ranks together
  // Of a device back-end:
  double percent_of_peak = BenchRow::kNone;  // flops per second / the peak of all devices
  double bus_bandwidth = BenchRow::kNone;    // bytes per second: sent / time in communication
  double overlap_percent = BenchRow::kNone;  // of the time in communication
};
Score score(const BenchRow& row);

}  // namespace sp
