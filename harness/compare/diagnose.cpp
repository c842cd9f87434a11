// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/diagnose.hpp"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "reference/attention.hpp"

namespace sp {
namespace {

int owner_of(const Layout& layout, std::int64_t token) {
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const Tokens tokens = layout.tokens(rank);
    for (const Run& run : tokens.runs()) {
      const std::int64_t offset = token - run.first;
      if (offset >= 0 && offset % run.stride == 0 && offset / run.stride < run.count) return rank;
    }
  }
  return -1;
}

// The failing element of out or lse as it would be without the keys of one rank, which segment ids
// hide.
double without_keys_of(const Problem& problem, const Inputs& inputs, const TensorVerdict& worst,
                       const Tokens& hidden, std::int64_t token) {
  Problem changed = problem;
  const std::int64_t N = problem.shape.N;
  std::vector<std::int32_t>& ids = changed.mask.segment_ids;
  ids.resize(static_cast<std::size_t>(problem.shape.B * N));
  // Only the row of `token` matters: every key that it may not see gets another id than its own.
  const std::int64_t b = worst.index[0];
  for (std::int64_t n = 0; n < N; ++n) {
    const auto at = static_cast<std::size_t>(b * N + n);
    const bool same = problem.mask.segment_ids.empty() ||
                      problem.mask.segment_ids[at] ==
                          problem.mask.segment_ids[static_cast<std::size_t>(b * N + token)];
    ids[at] = same ? 0 : 1;
  }
  for (const Run& run : hidden.runs()) {
    for (std::int64_t i = 0; i < run.count; ++i)
      ids[static_cast<std::size_t>(b * N + run.position(i))] = 1;
  }
  ids[static_cast<std::size_t>(b * N + token)] = 0;
  Inputs forward_only = inputs;
  forward_only.d_out = {};
  const std::vector<std::int64_t> tokens{token};
  const Outputs row = reference::attention_rows(changed, forward_only, tokens);
  const Shape& s = problem.shape;
  if (worst.name == "lse") return row.lse.at(b * s.H + worst.index[1]);
  return row.out.at((b * s.H + worst.index[2]) * s.E + worst.index[3]);
}

}  // namespace

std::string diagnose(const Problem& problem, const Inputs& inputs, const Verdict& verdict,
                     const Layout& layout) {
  const TensorVerdict* worst = verdict.worst();
  if (worst == nullptr) return "a verdict failed without elements";
  std::string text = describe(*worst);
  if (worst->index.size() < 2) return text;  // of all tokens: no one owns it
  const bool projection = worst->name.starts_with("d_projection");
  const std::int64_t token = worst->index[projection ? 0 : worst->name == "lse" ? 2 : 1];
  const int owner = owner_of(layout, token);
  text += fmt::format("; token {} belongs to rank {}", token, owner);
  const bool explainable = (worst->name == "out" || worst->name == "lse") &&
                           problem.family() == Family::kSoftmax && std::isfinite(worst->value) &&
                           problem.shape.N <= 4096;
  if (!explainable) return text;
  // A lost block of keys is the most common fault: does leaving one out give what was seen?
  for (int source = 0; source < layout.ranks(); ++source) {
    const double without = without_keys_of(problem, inputs, *worst, layout.tokens(source), token);
    if (std::fabs(without - worst->value) > 0.01 * worst->element.error) continue;
    text += fmt::format("; it is what results without the keys of rank {}", source);
    break;
  }
  return text;
}

}  // namespace sp
