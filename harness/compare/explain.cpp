// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "optimized/sharding/layout.hpp"

namespace sp {
namespace {

using Field = HostTensor Outputs::*;

Field field_of(const std::string& name) {
  const auto* found =
      std::ranges::find(kSoftmaxResults, name, &std::pair<const char*, Field>::first);
  return found == std::end(kSoftmaxResults) ? nullptr : found->second;
}

struct Seen {
  const TensorVerdict& verdict;
  const HostTensor &x, &exact;  // compared rows only
  std::int64_t row;             // elements of a row; 1 for lse
};

// x = factor exact, but for little.
struct Multiple {
  double factor = 1, rest = 1;  // rest: of the error, in norm
};
Multiple multiple_of(const Seen& t) {
  double xe = 0, ee = 0, error = 0, rest = 0;
  for (std::int64_t i = 0; i < t.x.size(); ++i) {
    if (!std::isfinite(t.x.at(i)) || !std::isfinite(t.exact.at(i))) continue;
    xe += t.x.at(i) * t.exact.at(i);
    ee += t.exact.at(i) * t.exact.at(i);
  }
  const double factor = ee > 0 ? xe / ee : 1;
  for (std::int64_t i = 0; i < t.x.size(); ++i) {
    if (!std::isfinite(t.x.at(i)) || !std::isfinite(t.exact.at(i))) continue;
    error += std::pow(t.x.at(i) - t.exact.at(i), 2);
    rest += std::pow(t.x.at(i) - factor * t.exact.at(i), 2);
  }
  return {factor, error > 0 ? std::sqrt(rest / error) : 1};
}

std::string of_factor(const Seen& t) {
  const auto [factor, rest] = multiple_of(t);
  if (rest > 0.05) return {};
  if (t.verdict.name == "lse" && std::fabs(factor - std::numbers::log2e) < 1e-3)
    return "lse is in base 2, where the natural logarithm is wanted";
  return fmt::format("{} is {:.4g} times what it should be, everywhere", t.verdict.name, factor);
}

// Whether every element is a number of `type`, which the tensor is not stored in.
std::string of_numbers(const Seen& t) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    if (t.x.dtype() == DType::kBF16 || t.x.dtype() == DType::kF16 || t.x.size() < 8) return {};
    const bool all = visit_dtype(type, [&]<class T>() {
      for (std::int64_t i = 0; i < t.x.size(); ++i)
        if (static_cast<double>(widen(narrow<T>(t.x.at(i)))) != t.x.at(i)) return false;
      return true;
    });
    if (all)
      return fmt::format("every element of {} is a number of {}", t.verdict.name, name_of(type));
  }
  return {};
}

// Errors of most rows as small and as even as a few roundings to 16 bits.
std::string of_roundings(const Seen& t, DType storage) {
  std::vector<double> relative;
  for (std::int64_t begin = 0; begin + t.row <= t.x.size() && t.row > 1; begin += t.row) {
    double error = 0, size = 0;
    for (std::int64_t i = begin; i < begin + t.row; ++i) {
      error += std::pow(t.x.at(i) - t.exact.at(i), 2);
      size += std::pow(t.exact.at(i), 2);
    }
    if (size > 0) relative.push_back(std::sqrt(error / size));
  }
  if (relative.size() < 8) return {};
  std::ranges::sort(relative);
  const double low = relative[relative.size() / 4], high = relative[relative.size() * 9 / 10];
  const double median = relative[relative.size() / 2];
  for (const DType type : {DType::kBF16, DType::kF16}) {
    const double u = unit_roundoff(type);
    const double least = storage == type ? 0.45 * u : 0.1 * u;  // that much the last rounding makes
    if (median < least || low < 0.05 * u || median > 4 * u || high > 10 * u) continue;
    return fmt::format(
        "{} is off by {:.2g} of a row, evenly: as if what it is summed up from were rounded to {} "
        "on its way",
        t.verdict.name, median, name_of(type));
  }
  return {};
}

// Which rows are wrong.
struct Place {
  std::set<std::int64_t> tokens, heads;
  std::string text;
};
Place place_of(const Seen& t, const Oracle& oracle) {
  const std::vector<std::int64_t>& sampled = oracle.tokens();
  const std::int64_t rows = sampled.empty() ? oracle.problem().shape.N : std::ssize(sampled);
  const bool lse = t.verdict.name == "lse";
  const std::int64_t heads = lse ? t.exact.extent(1) : t.exact.extent(2);
  Place place;
  for (const std::int64_t wrong : t.verdict.wrong) {
    const std::int64_t row = lse ? wrong % rows : wrong / heads % rows;
    place.tokens.insert(sampled.empty() ? row : sampled[static_cast<std::size_t>(row)]);
    place.heads.insert(lse ? wrong / rows % heads : wrong % heads);
  }
  if (place.tokens.empty()) return place;
  const std::int64_t first = *place.tokens.begin(), last = *place.tokens.rbegin();
  place.text = fmt::format("{}: {} of {} rows are wrong, ", t.verdict.name, t.verdict.wrong.size(),
                           t.exact.size() / t.row);
  place.text += first == last ? fmt::format("of token {}", first)
                              : fmt::format("of tokens {} to {}", first, last);
  if (std::ssize(place.heads) < heads)
    place.text += fmt::format(", in {} of {} heads", place.heads.size(), heads);
  return place;
}

// "1 to 3, 5"
std::string ranges_of(const std::set<std::int64_t>& numbers) {
  std::string text;
  for (auto it = numbers.begin(); it != numbers.end();) {
    const std::int64_t first = *it;
    std::int64_t last = first;
    while (++it != numbers.end() && *it == last + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", first);
    if (last > first) text += fmt::format("{}{}", last > first + 1 ? " to " : ", ", last);
  }
  return text;
}

// Which documents and, of a known layout, which ranks and chunks the wrong rows belong to, where it is not all of them.
std::string of_owners(const Place& place, const Oracle& oracle, const RunHint& run) {
  const Problem& problem = oracle.problem();
  const std::int64_t N = problem.shape.N;
  std::string text;
  if (place.tokens.empty()) return text;
  if (const std::vector<std::int32_t>& ids = problem.mask.segment_ids;
      !ids.empty() && problem.shape.B == 1) {
    std::set<std::int64_t> wrong;
    std::int64_t document = 0;
    for (std::int64_t n = 0; n < N; ++n) {
      document += n > 0 && ids[static_cast<std::size_t>(n)] != ids[static_cast<std::size_t>(n - 1)];
      if (place.tokens.contains(n)) wrong.insert(document);
    }
    if (std::ssize(wrong) <= document)
      text += fmt::format("; of documents {} of 0 to {}", ranges_of(wrong), document);
  }
  if (run.ranks == 0 || !run.sharding) return text;
  const Layout layout(*run.sharding, N, run.ranks);
  std::set<std::int64_t> ranks, chunks;
  for (int rank = 0; rank < run.ranks; ++rank) {
    const Tokens tokens = layout.tokens(rank);
    const std::int64_t pieces = std::ssize(tokens.runs());
    for (std::int64_t i = 0, piece = 0; piece < pieces; ++piece) {
      const Run& held = tokens.runs()[static_cast<std::size_t>(piece)];
      for (const std::int64_t end = i + held.count; i < end; ++i) {
        if (!place.tokens.contains(tokens.position(i))) continue;
        ranks.insert(rank);
        chunks.insert(piece);
      }
    }
  }
  if (std::ssize(ranks) < run.ranks)
    text += fmt::format("; of ranks {} of 0 to {}", ranges_of(ranks), run.ranks - 1);
  if (*run.sharding == Sharding::kZigzag && chunks.size() == 1)
    text += fmt::format("; of the {} chunk of every rank only",
                        *chunks.begin() == 0 ? "first" : "second");
  return text;
}

// Query rows at ends of chunks only.
std::string of_ends(const Place& place, const Oracle& oracle, const RunHint& run) {
  const std::int64_t N = oracle.problem().shape.N;
  for (const Cut& cut : usual_cuts(run)) {
    const std::int64_t chunks = cut.chunks();
    if (chunks == 1 || chunks * 8 > N || std::ssize(place.tokens) > 2 * chunks) continue;
    std::set<std::int64_t> sides;
    for (const std::int64_t end : chunk_ends(N, chunks)) sides.insert({end - 1, end});
    if (!place.tokens.empty() && std::ranges::includes(sides, place.tokens))
      return fmt::format(
          "wrong are only rows at ends of the {} chunks of {} ranks: as if a mask were off by one "
          "there",
          chunks, cut.ranks);
  }
  return {};
}

// Query rows behind the first document of a causal problem, and most of them.
std::string of_documents(const Place& place, const Oracle& oracle) {
  const Problem& problem = oracle.problem();
  const std::vector<std::int32_t>& ids = problem.mask.segment_ids;
  if (ids.empty() || !problem.mask.causal || problem.shape.B != 1) return {};
  std::int64_t behind = 0;
  const auto can_leak = [&](std::int64_t token) {
    return std::any_of(ids.begin(), ids.begin() + token,
                       [&](std::int32_t id) { return id != ids[static_cast<std::size_t>(token)]; });
  };
  const std::vector<std::int64_t>& sampled = oracle.tokens();
  const std::int64_t rows = sampled.empty() ? problem.shape.N : std::ssize(sampled);
  for (std::int64_t row = 0; row < rows; ++row)
    behind += can_leak(sampled.empty() ? row : sampled[static_cast<std::size_t>(row)]) ? 1 : 0;
  if (behind == rows || 2 * std::ssize(place.tokens) < behind) return {};
  if (!std::ranges::all_of(place.tokens, can_leak)) return {};
  return "rows of the first document are right, those behind it are wrong: as if document borders "
         "were not there, at "
         "least between shards";
}

// All tokens, rank after rank.
std::vector<std::int64_t> order_of(const Layout& layout) {
  std::vector<std::int64_t> order;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const Tokens tokens = layout.tokens(rank);
    for (std::int64_t i = 0; i < tokens.count(); ++i) order.push_back(tokens.position(i));
  }
  return order;
}

// Rows of the right result in the order in which ranks hold them.
std::string of_order(const Seen& t, const Oracle& oracle, const RunHint& run) {
  const Shape& s = oracle.problem().shape;
  if (oracle.sampled() || t.verdict.name == "lse" || s.N < 8 || s.B < 1) return {};
  const std::int64_t width = t.exact.size() / (s.B * s.N);
  for (const Cut& cut : usual_cuts(run)) {
    if (cut.sharding == Sharding::kContiguous) continue;
    const std::vector<std::int64_t> order = order_of(Layout(cut.sharding, s.N, cut.ranks));
    double error = 0, size = 0;
    for (std::int64_t n = 0; n < s.N; ++n) {
      const std::int64_t from = order[static_cast<std::size_t>(n)];
      if (from == n) continue;
      for (std::int64_t c = 0; c < width; ++c) {
        error += std::pow(t.x.at(n * width + c) - t.exact.at(from * width + c), 2);
        size += std::pow(t.exact.at(from * width + c), 2);
      }
    }
    if (size > 0 && error < 1e-3 * size)
      return fmt::format("{} holds the right rows in {} order for P = {}", t.verdict.name,
                         name_of(cut.sharding), cut.ranks);
  }
  return {};
}

bool is_right(const Verdict& verdict, const char* name) {
  const auto found = std::ranges::find(verdict.tensors, name, &TensorVerdict::name);
  return found != verdict.tensors.end() && found->passed();
}

// Forward right, gradients wrong: what backward makes of it.
std::string of_backward(const std::vector<Seen>& wrong, const Verdict& verdict) {
  if (!is_right(verdict, "out")) return {};
  const auto found =
      std::ranges::find_if(wrong, [](const Seen& t) { return t.verdict.name == "d_v"; });
  if (found == wrong.end()) return {};
  double x2 = 0, exact2 = 0;
  for (std::int64_t i = 0; i < found->x.size(); ++i) {
    x2 += found->x.at(i) * found->x.at(i);
    exact2 += found->exact.at(i) * found->exact.at(i);
  }
  if (x2 > 1.05 * exact2)
    return fmt::format(
        "out is right, but d_v is too large, {:.3g} times in norm: as if backward normalised every "
        "block of keys by its own "
        "log-sum-exp instead of the whole one",
        std::sqrt(x2 / exact2));
  return {};
}

}  // namespace

std::vector<std::string> explain(const Oracle& oracle, const Outputs& result,
                                 const Verdict& verdict, const RunHint& run) {
  const Outputs rows = oracle.rows(result);
  std::vector<Seen> wrong;
  for (const TensorVerdict& tensor : verdict.tensors) {
    const Field field = field_of(tensor.name);
    if (tensor.passed() || field == nullptr) continue;
    const HostTensor& exact = oracle.exact().*field;
    wrong.push_back({tensor, rows.*field, exact, tensor.name == "lse" ? 1 : exact.shape().back()});
  }
  std::vector<std::string> sentences;
  const auto say = [&](std::string sentence) {
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
  };
  if (wrong.empty()) return sentences;
  say(of_backward(wrong, verdict));
  std::string mask;
  if (const Seen& first = wrong.front();
      first.verdict.name == "out" || first.verdict.name == "lse") {
    const Place place = place_of(first, oracle);
    mask = of_ends(place, oracle, run);
    if (mask.empty()) mask = of_documents(place, oracle);
    say(mask);
  }
  for (const Seen& t : wrong) {
    const std::size_t before = sentences.size();
    say(of_factor(t));
    if (sentences.size() == before) say(of_order(t, oracle, run));
    say(of_numbers(t));
    if (sentences.size() == before && mask.empty()) say(of_roundings(t, oracle.problem().dtype));
    const Place place = place_of(t, oracle);
    say(place.text + of_owners(place, oracle, run));
  }
  if (oracle.judge_rows(rows, 2).passed())
    say(fmt::format("all is within limits if partial results may be stored in {} (see --roundings)",
                    name_of(oracle.problem().dtype)));
  return sentences;
}

}  // namespace sp
