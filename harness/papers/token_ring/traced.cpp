// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/token_ring/traced.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

bool moves_data(const Span& span) {
  return span.lane == TraceLane::kSend || span.lane == TraceLane::kReceive;
}

}  // namespace

TracedForward::TracedForward(const Platform& platform, const std::string& algorithm,
                             const Problem& problem, int ranks) {
  const Algorithm* found = find_algorithm(algorithm);
  if (found == nullptr)
    throw Error(ErrorKind::kUsage, fmt::format("there is no algorithm '{}'", algorithm));
  Timeline timeline;
  SimulationOptions options;
  options.backward = false;
  options.timeline = &timeline;
  prediction_ = simulate(platform, *found, problem, {.size = ranks}, options);
  if (prediction_.status != RowStatus::kOk)
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}", algorithm, prediction_.reason));
  spans_ = timeline.take();
}

std::vector<double> TracedForward::kernels(int rank, std::string_view name) const {
  std::vector<double> seconds;
  for (const Span& span : spans_) {
    if (span.rank == rank && span.lane == TraceLane::kCompute && span.name == name)
      seconds.push_back(span.end_s - span.start_s);
  }
  return seconds;
}

double TracedForward::exchange(int rank, std::string_view tensor, int step) const {
  double first = std::numeric_limits<double>::infinity(), last = 0;
  for (const Span& span : spans_) {
    if (span.rank != rank || !moves_data(span) || span.name != tensor || span.step != step)
      continue;
    first = std::min(first, span.start_s);
    last = std::max(last, span.end_s);
  }
  return std::max(last - first, 0.0);
}

double TracedForward::most_bytes(int rank, std::string_view tensor, int step) const {
  std::int64_t most = 0;
  for (const Span& span : spans_) {
    if (span.rank == rank && moves_data(span) && span.name == tensor && span.step == step)
      most = std::max(most, span.bytes);
  }
  return static_cast<double>(most);
}

double TracedForward::begin(int rank) const {
  double first = std::numeric_limits<double>::infinity();
  for (const Span& span : spans_) {
    if (span.rank == rank && moves_data(span)) first = std::min(first, span.start_s);
  }
  return first;
}

double TracedForward::end_of_last(int rank, std::string_view kernel) const {
  double last = 0;
  for (const Span& span : spans_) {
    if (span.rank == rank && span.lane == TraceLane::kCompute && span.name == kernel)
      last = std::max(last, span.end_s);
  }
  return last - begin(rank);
}

double TracedForward::end(int rank) const {
  double last = 0;
  for (const Span& span : spans_) {
    if (span.rank == rank) last = std::max(last, span.end_s);
  }
  return last - begin(rank);
}

}  // namespace sp
