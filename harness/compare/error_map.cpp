// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/error_map.hpp"

#include <limits>

namespace sp {
namespace {

// Of the compared rows into the whole, whose axis `axis` counts tokens.
void place_errors(HostTensor& errors, const HostTensor& rows, const HostTensor& exact,
                  std::size_t axis, const std::vector<std::int64_t>& tokens) {
  std::int64_t inner = 1;
  for (std::size_t a = axis + 1; a < rows.shape().size(); ++a) inner *= rows.extent(a);
  const std::int64_t count = rows.extent(axis), all = errors.extent(axis);
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    const std::int64_t outer = i / inner / count, row = i / inner % count;
    const std::int64_t token = tokens.empty() ? row : tokens[static_cast<std::size_t>(row)];
    errors.set((outer * all + token) * inner + i % inner, rows.at(i) - exact.at(i));
  }
}

}  // namespace

Outputs error_map(const Oracle& oracle, const Outputs& result) {
  const Outputs rows = oracle.rows(result);
  Outputs map;
  for (const auto& field : kAllResults) {
    const HostTensor &compared = rows.*field.tensor, &exact = oracle.exact().*field.tensor;
    if (compared.absent() || exact.absent()) continue;
    HostTensor& errors = map.*field.tensor;
    errors = HostTensor(DType::kF32, (result.*field.tensor).shape());
    for (std::int64_t i = 0; i < errors.size(); ++i)
      errors.set(i, std::numeric_limits<double>::quiet_NaN());
    const bool sampled = oracle.sampled();
    place_errors(errors, compared, exact,
                 !sampled                        ? 0
                 : field.tensor == &Outputs::lse ? 2
                                                 : 1,
                 oracle.tokens());
  }
  return map;
}

}  // namespace sp
