// SPDX-License-Identifier: Apache-2.0
#include "harness/results/bench_file.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/run_writer.hpp"

namespace sp {
namespace {

template <class T>
std::size_t position(std::vector<T>& values, const T& value) {
  const auto found = std::find(values.begin(), values.end(), value);
  if (found != values.end()) return static_cast<std::size_t>(found - values.begin());
  values.push_back(value);
  return values.size() - 1;
}

// Where the rows stand on the axes.
struct Grid {
  explicit Grid(const std::vector<BenchRow>& rows) {
    std::vector<std::array<std::size_t, 3>> places;
    for (const BenchRow& row : rows) {
      places.push_back({position(variants, row.variant()), position(lengths, row.tokens),
                        position(ranks, std::int64_t{row.ranks})});
    }
    cells.resize(variants.size() * lengths.size() * ranks.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto [variant, length, rank] = places[i];
      cells[(variant * lengths.size() + length) * ranks.size() + rank] = &rows[i];
    }
  }
  std::vector<std::string> variants;
  std::vector<std::int64_t> lengths, ranks;
  std::vector<const BenchRow*> cells;  // row-major; null: no row
};

class Writer {
 public:
  Writer(hid_t file, const BenchTable& table)
      : table_(table),
        grid_(table.rows),
        variant_(write_axis(file, "variant", "algorithm, back-end and module", grid_.variants)),
        length_(write_axis(file, "seq_len", "tokens N of the whole sequence", grid_.lengths)),
        ranks_(write_axis(file, "ranks", "ranks P", grid_.ranks)),
        direction_(write_axis(file, "direction", "pass of a repetition", directions())),
        repetition_(write_axis(file, "repetition", "number of the repetition", numbers())) {}

  // One number per row.
  void cells(hid_t where, const std::string& name, const std::string& long_name,
             const std::string& units, const std::function<double(const BenchRow&)>& get) const {
    std::vector<double> values;
    for (const BenchRow* row : grid_.cells)
      values.push_back(row == nullptr ? BenchRow::kNone : get(*row));
    write_column(where, name, long_name, {&variant_, &length_, &ranks_}, units, values);
  }
  void words(hid_t where, const std::string& name, const std::string& long_name,
             const std::function<std::string(const BenchRow&)>& get) const {
    std::vector<std::string> values;
    for (const BenchRow* row : grid_.cells) values.push_back(row == nullptr ? "" : get(*row));
    write_column(where, name, long_name, {&variant_, &length_, &ranks_}, values);
  }
  void statuses(hid_t where) const {
    std::vector<std::int64_t> values, flags;
    for (const BenchRow* row : grid_.cells)
      values.push_back(
          static_cast<std::int64_t>(row == nullptr ? RowStatus::kUnverified : row->status));
    const h5::Handle dataset = write_column(where, "status", "what became of the row",
                                            {&variant_, &length_, &ranks_}, "1", values);
    std::string meanings;
    for (const RowStatus status : kRowStatuses) {
      flags.push_back(static_cast<std::int64_t>(status));
      if (!meanings.empty()) meanings += ' ';
      meanings += name_of(status);
    }
    h5::write_attribute(dataset, "flag_values", flags);
    h5::write_attribute(dataset, "flag_meanings", meanings);
  }
  // One number per row and direction.
  void costs(hid_t where, const std::string& name, const std::string& long_name,
             const std::string& units, std::int64_t PassRecord::* cost) const {
    std::vector<double> values;
    each_pass(&BenchRow::passes, [&](const PassRecord* pass) {
      values.push_back(pass == nullptr ? BenchRow::kNone : static_cast<double>(pass->*cost));
    });
    write_column(where, name, long_name, {&variant_, &length_, &ranks_, &direction_}, units,
                 values);
  }
  // One number per row, direction and repetition.
  void samples(hid_t where, const std::string& name, const std::string& long_name,
               std::vector<PassRecord> BenchRow::* passes,
               std::vector<double> PassRecord::* times) const {
    std::vector<double> values;
    each_pass(passes, [&](const PassRecord* pass) {
      append(values, pass == nullptr ? std::vector<double>() : pass->*times);
    });
    write_column(where, name, long_name, {&variant_, &length_, &ranks_, &direction_, &repetition_},
                 "s", values);
  }
  void imbalances(hid_t where) const {
    std::vector<double> values;
    for (const BenchRow* row : grid_.cells)
      append(values, row == nullptr ? std::vector<double>() : row->busy_imbalance);
    write_column(where, "busy_imbalance", "time outside waits: largest over ranks / mean",
                 {&variant_, &length_, &ranks_, &repetition_}, "1", values);
  }

 private:
  std::vector<std::string> directions() const {
    return table_.backward ? std::vector<std::string>{"forward", "backward"}
                           : std::vector<std::string>{"forward"};
  }
  std::vector<std::int64_t> numbers() const {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < table_.repetitions; ++i) all.push_back(i);
    return all;
  }
  // Exactly the axis `repetition`: NaN where a row has no samples.
  void append(std::vector<double>& values, std::vector<double> samples) const {
    samples.resize(static_cast<std::size_t>(table_.repetitions), BenchRow::kNone);
    values.insert(values.end(), samples.begin(), samples.end());
  }
  void each_pass(std::vector<PassRecord> BenchRow::* passes,
                 const std::function<void(const PassRecord*)>& visit) const {
    for (const BenchRow* row : grid_.cells) {
      for (std::size_t pass = 0; pass < directions().size(); ++pass) {
        const bool there = row != nullptr && pass < (row->*passes).size();
        visit(there ? &(row->*passes)[pass] : nullptr);
      }
    }
  }

  const BenchTable& table_;
  Grid grid_;
  RunAxis variant_, length_, ranks_, direction_, repetition_;
};

void write_samples(hid_t group, const Writer& writer) {
  writer.samples(group, "time", "time of the slowest rank", &BenchRow::passes, &PassRecord::time_s);
  writer.samples(group, "waiting", "time in waits for messages, mean over ranks", &BenchRow::passes,
                 &PassRecord::waiting_s);
  writer.samples(group, "communicating", "time in communication, hidden or not, mean over ranks",
                 &BenchRow::passes, &PassRecord::communicating_s);
  writer.samples(group, "cpu_time", "processor time of all ranks together", &BenchRow::passes,
                 &PassRecord::cpu_s);
  writer.samples(group, "one_rank_time", "time of the same problem and algorithm on one rank",
                 &BenchRow::one_rank, &PassRecord::time_s);
  writer.imbalances(group);
}

void write_costs(hid_t group, const Writer& writer) {
  writer.costs(group, "bytes_sent", "bytes sent, largest over ranks", "byte",
               &PassRecord::bytes_sent);
  writer.costs(group, "messages_sent", "messages sent, largest over ranks", "1",
               &PassRecord::messages_sent);
  writer.costs(group, "peak_bytes", "memory beyond the shards, largest over ranks", "byte",
               &PassRecord::peak_bytes);
  writer.costs(group, "flops", "floating-point operations of all ranks together", "1",
               &PassRecord::flops);
  writer.cells(group, "flops_imbalance", "flops: largest over ranks / mean", "1",
               [](const BenchRow& row) { return row.flops_imbalance; });
  writer.cells(group, "flops_ratio", "flops of all ranks / flops on one rank", "1",
               [](const BenchRow& row) { return score(row).flops_ratio; });
  writer.cells(
      group, "cores", "logical processors that the ranks may use, or devices that they compute on",
      "1", [](const BenchRow& row) { return row.passes.empty() ? BenchRow::kNone : row.cores; });
  writer.cells(group, "peak_flops", "peak of one rank's device in the storage type", "1/s",
               [](const BenchRow& row) { return row.peak_flops; });
  writer.cells(group, "peak_clock", "clock at which a real device has that peak: its highest", "Hz",
               [](const BenchRow& row) { return row.peak_clock_hz; });
  writer.cells(group, "percent_of_ideal",
               "median one_rank_time / min(ranks, cores) / median time, all directions", "percent",
               [](const BenchRow& row) { return score(row).percent_of_ideal; });
}

// A prediction computes nothing that could be wrong.
void write_verdicts(hid_t group, const Writer& writer, bool checked) {
  writer.words(group, "verdict", "of the correctness check: passed, failed or none",
               [checked](const BenchRow& row) {
                 if (!checked) return "none";
                 if (row.status == RowStatus::kFailed) return "failed";
                 return row.status == RowStatus::kOk ? "passed" : "none";
               });
  writer.cells(group, "max_error", "error of the element nearest to its limit", "1",
               [](const BenchRow& row) { return row.max_error; });
  writer.cells(group, "limit", "largest error allowed for that element", "1",
               [](const BenchRow& row) { return row.limit; });
  writer.cells(group, "worst_ratio", "max_error / limit", "1",
               [](const BenchRow& row) { return row.worst_ratio; });
}

}  // namespace

void write_bench_run(const std::string& path, const BenchTable& table,
                     const Environment& environment) {
  RunFile run = begin_run(environment, table.command_line, table.kind);
  for (const auto& [name, value] : table.config) h5::write_attribute(run.config, name, value);
  h5::write_attribute(run.config, "seed", std::to_string(table.seed));  // beyond signed integers
  {
    const Writer writer(run.file, table);
    writer.statuses(run.file);
    writer.words(run.file, "status_reason", "why a row has no times",
                 [](const BenchRow& row) { return row.reason; });
    writer.words(run.file, "problem", "what was computed",
                 [](const BenchRow& row) { return row.problem; });
    write_samples(h5::create_group(run.file, "samples"), writer);
    write_costs(h5::create_group(run.file, "cost"), writer);
    const bool predicted = table.kind == "simulated";
    if (predicted)
      writer.cells(run.file, "band", "largest relative error of the platform's calibration", "1",
                   [](const BenchRow& row) { return row.band; });
    write_verdicts(h5::create_group(run.file, "verification"), writer, !predicted);
  }
  finish_run(path, std::move(run));
}

}  // namespace sp
