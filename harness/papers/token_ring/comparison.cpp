// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/token_ring/comparison.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "harness/papers/counted.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// Between a length where TokenRing is faster and one where it is not.
std::int64_t crossing(Stopwatch& watch, const std::string& over, int ranks, std::int64_t faster,
                      std::int64_t slower, std::int64_t key_heads, Passes passes) {
  constexpr double kEnough = 1.02;
  auto a = static_cast<double>(faster), b = static_cast<double>(slower);
  while (std::max(a, b) / std::min(a, b) > kEnough) {
    const double middle = std::sqrt(a * b);
    const auto tokens = static_cast<std::int64_t>(middle);
    (watch.advantage(over, ranks, tokens, key_heads, passes) > 1 ? a : b) = middle;
  }
  return static_cast<std::int64_t>(std::sqrt(a * b));
}

}  // namespace

std::string name_of(Passes passes) {
  return passes == Passes::kForward ? "forward" : "forward and backward";
}

Stopwatch::Stopwatch(Platform platform, std::int64_t heads, std::int64_t head_size)
    : platform_(std::move(platform)), heads_(heads), head_size_(head_size) {}

const Prediction& Stopwatch::predict(const Key& key) {
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  const auto& [id, ranks, tokens, key_heads] = key;
  const Algorithm* algorithm = find_algorithm(id);
  if (algorithm == nullptr)
    throw Error(ErrorKind::kUsage, fmt::format("there is no algorithm '{}'", id));
  const Problem problem =
      softmax_problem({1, tokens, heads_, key_heads, head_size_, head_size_}, DType::kF16, true);
  const World world{.size = ranks, .node_size = std::min(ranks, platform_.node.devices)};
  return known_.emplace(key, simulate(platform_, *algorithm, problem, world)).first->second;
}

double Stopwatch::seconds(const std::string& algorithm, int ranks, std::int64_t tokens,
                          std::int64_t key_heads, Passes passes) {
  const Prediction& p = predict({algorithm, ranks, tokens, key_heads});
  if (p.status != RowStatus::kOk) return std::numeric_limits<double>::quiet_NaN();
  return passes == Passes::kForward ? p.forward.time_s : p.total_s();
}

double Stopwatch::advantage(const std::string& over, int ranks, std::int64_t tokens,
                            std::int64_t key_heads, Passes passes) {
  return seconds(over, ranks, tokens, key_heads, passes) /
         seconds(kTokenRing, ranks, tokens, key_heads, passes);
}

double Stopwatch::sent(const std::string& algorithm, int ranks, std::int64_t tokens,
                       std::int64_t key_heads, Passes passes) {
  double bytes = 0;
  for (const Measured& cost : predict({algorithm, ranks, tokens, key_heads}).ranks) {
    bytes += static_cast<double>(cost.forward.bytes_sent);
    if (passes == Passes::kBoth) bytes += static_cast<double>(cost.backward.bytes_sent);
  }
  return bytes / ranks;
}

std::optional<FasterRange> faster_range(Stopwatch& watch, const std::string& over, int ranks,
                                        const std::vector<std::int64_t>& lengths,
                                        std::int64_t key_heads, Passes passes) {
  const auto faster = [&](std::size_t i) {
    return watch.advantage(over, ranks, lengths[i], key_heads, passes) > 1;
  };
  std::size_t first = 0, last = lengths.size();
  while (first < lengths.size() && !faster(first)) ++first;
  while (last > first && !faster(last - 1)) --last;
  if (first == last) return std::nullopt;
  FasterRange range{lengths[first], lengths[last - 1], first == 0, last == lengths.size()};
  if (!range.from_first)
    range.from =
        crossing(watch, over, ranks, lengths[first], lengths[first - 1], key_heads, passes);
  if (!range.to_last)
    range.to = crossing(watch, over, ranks, lengths[last - 1], lengths[last], key_heads, passes);
  return range;
}

}  // namespace sp
