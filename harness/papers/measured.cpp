// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/measured.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/run/phantom.hpp"
#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {

ReplayRow replay_row(const MeasuredRow& row, const Platform& platform) {
  ReplayRow out =
      context_row(row.label, row.quantity, row.unit, row.predict(platform), Provenance::kSimulated);
  out.paper = row.paper.value;
  out.grade = row.paper.grade;
  out.rounding = row.paper.rounding;
  out.band = platform.band;
  out.fitted = row.fitted;
  ReplayRow verdict = judged(out);
  if (verdict.verdict != ClaimVerdict::kNotReproduced || row.suspect.empty()) return verdict;
  out.reason = row.suspect;
  return judged(std::move(out));
}

std::vector<ReplayRow> replay_rows(
    const std::vector<MeasuredRow>& rows, const Platform& platform,
    const std::function<void(std::int64_t done, std::int64_t total)>& progress) {
  std::vector<ReplayRow> out;
  for (const MeasuredRow& row : rows) {
    out.push_back(replay_row(row, platform));
    progress(std::ssize(out), std::ssize(rows));
  }
  return out;
}

std::string residuals_of(const std::vector<MeasuredRow>& rows, const std::vector<ReplayRow>& out) {
  std::vector<double> errors;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].fitted && rows[i].suspect.empty()) errors.push_back(std::abs(out[i].error()));
  }
  if (errors.empty()) return "no row is left that was not fitted";
  std::sort(errors.begin(), errors.end());
  const std::size_t n = errors.size();
  return fmt::format("{} rows that were not fitted: median error {:.1f} %, largest {:.1f} %", n,
                     50 * (errors[(n - 1) / 2] + errors[n / 2]), 100 * errors.back());
}

LayerSeconds layer_seconds(const Platform& platform, const std::string& algorithm,
                           const Problem& problem, const World& world, bool backward) {
  const Algorithm* found = find_algorithm(algorithm);
  if (found == nullptr)
    throw Error(ErrorKind::kUsage, fmt::format("there is no algorithm '{}'", algorithm));
  SimulationOptions options;
  options.backward = backward;
  const Prediction prediction = simulate(platform, *found, problem, world, options);
  if (prediction.status != RowStatus::kOk)
    throw Error(ErrorKind::kUsage,
                fmt::format("{} on {}: {}", algorithm, platform.name, prediction.reason));
  return {prediction.forward.time_s, prediction.backward.time_s};
}

LayerSeconds single_device_seconds(const Platform& distributed, const Problem& problem,
                                   bool backward) {
  validate(problem);
  Platform platform = distributed;
  platform.device.kernels.merge_traffic = 1;  // there is nothing to merge or to sum
  const auto run = [&](bool both) {
    const auto body = [&](Machine& machine) {
      Context ctx{machine.comm, machine.kernels, machine.memory};
      const Layout layout(Sharding::kContiguous, problem.shape.N, 1);
      const Shards in = phantom_shards(problem, layout, 0, machine.memory);
      const Tokens all = layout.tokens(0);
      const AttentionBlock block{in.q, in.k, in.v, all, all, in.mask, problem.scale};
      const Partial result = allocate_partial(ctx, in, problem.shape.N, problem.dtype);
      machine.kernels.attention(block, result);
      if (!both) return;
      const DType acc = accumulator_of(problem.dtype);
      const Tensor d_out = phantom_d_out(problem, layout, 0, machine.memory);
      const Tensor delta = delta_of(ctx, d_out, result.out);
      machine.kernels.attention_backward(
          block, d_out, result.lse, delta,
          {zeros(ctx, acc, in.q.shape(), "d_q"), zeros(ctx, acc, in.k.shape(), "d_k"),
           zeros(ctx, acc, in.v.shape(), "d_v")});
    };
    return run_phantom(platform, 1, body).time_s;
  };
  LayerSeconds seconds{run(false), 0};
  if (backward) seconds.backward = run(true) - seconds.forward;
  return seconds;
}

}  // namespace sp
