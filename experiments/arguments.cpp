// SPDX-License-Identifier: Apache-2.0
#include "experiments/arguments.hpp"

#include <fmt/format.h>

#include <charconv>
#include <iterator>
#include <optional>

#include "harness/config/nearest.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorKind::kUsage, message); }

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  return parts;
}

// The whole text as a number, or nothing.
template <class T>
std::optional<T> parse_whole(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int parse_rank(const std::string& text) {
  const std::optional<int> value = parse_whole<int>(text);
  if (!value || *value < 1) {
    refuse(
        fmt::format("ranks '{}' is not a number of ranks; allowed: 8, 2,4,8, 1..9, 8:64:*2", text));
  }
  return *value;
}

void append_range(std::vector<int>& ranks, const std::string& text) {
  constexpr std::size_t kMost = 10'000;
  const auto append = [&](int rank) {
    if (ranks.size() >= kMost)
      refuse(fmt::format("ranks '{}' is more than {} values", text, kMost));
    ranks.push_back(rank);
  };
  if (const std::size_t dots = text.find(".."); dots != std::string::npos) {
    const int first = parse_rank(text.substr(0, dots)), last = parse_rank(text.substr(dots + 2));
    if (first > last) refuse(fmt::format("ranks '{}' is an empty range", text));
    for (std::int64_t rank = first; rank <= last; ++rank) append(static_cast<int>(rank));
    return;
  }
  const std::vector<std::string> parts = split(text, ':');
  if (parts.size() == 1) return append(parse_rank(text));
  if (parts.size() != 3 || parts[2].empty()) {
    refuse(fmt::format("ranks '{}' is no range; allowed: from..to, from:to:step, from:to:*factor",
                       text));
  }
  const int first = parse_rank(parts[0]), last = parse_rank(parts[1]);
  const bool multiply = parts[2].front() == '*';
  const int step = parse_rank(multiply ? parts[2].substr(1) : parts[2]);
  if (multiply && step < 2)
    refuse(fmt::format("ranks '{}' never ends; the factor must be 2 or more", text));
  for (std::int64_t rank = first; rank <= last; rank = multiply ? rank * step : rank + step) {
    append(static_cast<int>(rank));
  }
}

}  // namespace

std::int64_t parse_size(const std::string& text, const char* what) {
  std::int64_t value = 0;
  const char* const begin = text.data();
  const auto [end, error] = std::from_chars(begin, begin + text.size(), value);
  const std::string suffix(end, begin + text.size());
  std::int64_t factor = 0;
  if (suffix.empty()) factor = 1;
  if (suffix == "K" || suffix == "k") factor = std::int64_t{1} << 10;
  if (suffix == "M" || suffix == "m") factor = std::int64_t{1} << 20;
  if (suffix == "G" || suffix == "g") factor = std::int64_t{1} << 30;
  std::int64_t size = 0;
  if (error != std::errc() || factor == 0 || value < 0 ||
      __builtin_mul_overflow(value, factor, &size)) {
    refuse(fmt::format(
        "{} '{}' is not a size; allowed: a whole number >= 0, with K, M or G for powers of 1024",
        what, text));
  }
  return size;
}

std::vector<std::int64_t> parse_sizes(const std::string& text, const char* what) {
  std::vector<std::int64_t> sizes;
  for (const std::string& part : split(text, ',')) sizes.push_back(parse_size(part, what));
  return sizes;
}

std::vector<DType> parse_dtypes(const std::string& text) {
  std::vector<DType> types;
  for (const std::string& part : split(text, ',')) types.push_back(parse_dtype(part));
  return types;
}

std::vector<Module> parse_modules(const std::string& text) {
  if (text == "all") return {std::begin(kModules), std::end(kModules)};
  std::vector<Module> modules;
  for (const std::string& part : split(text, ',')) modules.push_back(parse_module(part));
  return modules;
}

std::vector<int> parse_ranks(const std::string& text) {
  std::vector<int> ranks;
  for (const std::string& part : split(text, ',')) append_range(ranks, part);
  return ranks;
}

std::string refuse_empty(const std::string& text) {
  return text.empty() ? "the value is empty" : "";
}

std::string refuse_no_seed(const std::string& text) {
  return parse_whole<std::uint64_t>(text)
             ? ""
             : fmt::format("'{}' is not a number from 0 to 2^64 - 1", text);
}

std::string refuse_no_time(const std::string& text) {
  const std::optional<double> value = parse_whole<double>(text);
  return value && *value >= 0.001 && *value <= 1e6
             ? ""
             : fmt::format("'{}' is not a time limit; allowed: 0.001 to 1e6 seconds", text);
}

std::vector<int> whole_nodes(const std::vector<int>& ranks, int node_size, bool say) {
  std::vector<int> whole, partial;
  for (const int size : ranks) (size % node_size == 0 ? whole : partial).push_back(size);
  if (whole.empty())
    throw Error(ErrorKind::kUsage,
                fmt::format("impossible mesh: {} ranks per node do not divide {} ranks; allowed: "
                            "multiples of {}",
                            node_size, fmt::join(partial, ", "), node_size));
  if (say && !partial.empty())
    fmt::print(stderr, "# skipped: {} ranks are no whole nodes of {}\n", fmt::join(partial, ", "),
               node_size);
  return whole;
}

std::vector<const Algorithm*> parse_algorithms(const std::string& text) {
  if (text == "all") return {algorithms().begin(), algorithms().end()};
  std::vector<std::string> ids;
  for (const Algorithm* algorithm : algorithms()) ids.emplace_back(algorithm->id);
  std::vector<const Algorithm*> chosen;
  for (const std::string& id : split(text, ',')) {
    const Algorithm* algorithm = find_algorithm(id);
    if (algorithm == nullptr) {
      const std::string near = nearest(id, ids);
      refuse(fmt::format("unknown algorithm '{}'{}; `seqpar list` shows all", id,
                         near.empty() ? "" : fmt::format(", did you mean '{}'?", near)));
    }
    chosen.push_back(algorithm);
  }
  return chosen;
}

}  // namespace sp
