// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/real_layer_file.hpp"

#include <utility>

#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/run_writer.hpp"

namespace sp {
namespace {

// One value per algorithm and head.
std::vector<double> per_head(const RealLayerResult& result,
                             std::vector<double> RealLayerRow::* member) {
  std::vector<double> values;
  for (const RealLayerRow& row : result.rows)
    values.insert(values.end(), (row.*member).begin(), (row.*member).end());
  return values;
}

void write_columns(hid_t file, const RealLayer& layer, const RealLayerResult& result) {
  std::vector<std::string> names, verdicts;
  std::vector<std::int64_t> heads, peak, sent;
  for (const RealLayerRow& row : result.rows) {
    names.push_back(std::string(row.algorithm->id) + "/thread");
    verdicts.push_back(row.passed ? "passed" : "failed");
    peak.push_back(row.peak_bytes);
    sent.push_back(row.bytes_sent);
  }
  for (std::int64_t head = 0; head < layer.heads; ++head) heads.push_back(head);
  const RunAxis variant = write_axis(file, "variant", "algorithm and back-end", names);
  const RunAxis head = write_axis(file, "head", "head", heads);
  const h5::Handle samples = h5::create_group(file, "samples");
  write_column(samples, "forward_time", "forward pass, slowest rank", {&variant, &head}, "s",
               per_head(result, &RealLayerRow::forward_s));
  write_column(samples, "backward_time", "backward pass, slowest rank", {&variant, &head}, "s",
               per_head(result, &RealLayerRow::backward_s));
  const h5::Handle verification = h5::create_group(file, "verification");
  write_column(verification, "worst_ratio", "largest error / limit over sampled rows",
               {&variant, &head}, "1", per_head(result, &RealLayerRow::worst_ratio));
  write_column(verification, "verdict", "passed or failed", {&variant}, verdicts);
  const h5::Handle cost = h5::create_group(file, "cost");
  write_column(cost, "peak_memory", "of one rank beyond its shards, largest", {&variant}, "byte",
               peak);
  write_column(cost, "sent", "by one rank per head, both passes, largest", {&variant}, "byte",
               sent);
}

}  // namespace

void write_real_layer(const std::string& path, const RealLayer& layer,
                      const RealLayerResult& result, const std::string& command_line,
                      const Environment& environment) {
  RunFile run = begin_run(environment, command_line);
  h5::write_attribute(run.config, "tokens", layer.tokens);
  h5::write_attribute(run.config, "heads", layer.heads);
  h5::write_attribute(run.config, "head_size", layer.head_size);
  h5::write_attribute(run.config, "ranks", std::int64_t{layer.ranks});
  h5::write_attribute(run.config, "cores", std::int64_t{result.cores});
  h5::write_attribute(run.config, "checked_tokens", result.checked_tokens);
  h5::write_attribute(run.config, "process_peak_bytes", result.process_bytes);
  write_columns(run.file, layer, result);
  finish_run(path, std::move(run));
}

}  // namespace sp
