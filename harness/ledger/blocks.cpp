// SPDX-License-Identifier: Apache-2.0
#include "harness/ledger/blocks.hpp"

#include <fmt/format.h>

namespace sp::ledger {

std::vector<std::int64_t> positions_of(const Tokens& tokens) {
  std::vector<std::int64_t> positions;
  positions.reserve(static_cast<std::size_t>(tokens.count()));
  for (const Run& run : tokens.runs()) {
    for (std::int64_t i = 0; i < run.count; ++i) positions.push_back(run.position(i));
  }
  return positions;
}

Place read_operand(const Books& books, const Tensor& tensor, Operand operand, std::int64_t i,
                   std::int64_t b, std::int64_t h, std::int64_t n) {
  const Row row(tensor, i, b, h);
  const std::int64_t H = books.problem.shape.H, L = books.problem.layer_count();
  for (std::int64_t layer = 0; layer + 1 < L; ++layer) {
    if (operand == Operand::kQuery && books.is_out(row, b, layer * H + h, n))
      return {operand, b, n, (layer + 1) * H + h};
    if (operand == Operand::kGradient && books.is_d_q(row, b, (layer + 1) * H + h, n))
      return {operand, b, n, layer * H + h};
  }
  return read(row, operand);
}

std::int64_t head_of(const Books& books, const Tensor& tensor, Operand operand,
                     const std::vector<std::int64_t>& positions, std::int64_t b, std::int64_t h) {
  std::int64_t head = 0;
  for (std::int64_t i = 0; i < tensor.extent(0); ++i) {
    const std::int64_t n = positions[static_cast<std::size_t>(i)];
    const Place place = read_operand(books, tensor, operand, i, b, h, n);
    if (i == 0) head = place.h;
    if (const Place expected{operand, b, n, head}; place != expected)
      refuse(fmt::format("the {} stands where the {} was announced", describe(place),
                         describe(expected)));
  }
  return head;
}

void expect_heads(const Books& books, std::int64_t head, std::int64_t key_head,
                  std::int64_t value_head) {
  if (books.key_head_of(head) != key_head || key_head != value_head)
    refuse(fmt::format("query head {} meets key head {} and value head {}", head, key_head,
                       value_head));
}

void expect_scale(double scale, double expected) {
  if (scale != expected) refuse(fmt::format("scale {}, expected {}", scale, expected));
}

}  // namespace sp::ledger
