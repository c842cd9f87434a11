// Bundles: tensors with the same rows that travel together, and those that queries and their
// results are made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// One tensor [rows, B, heads, size] of those that travel together.
struct Field {
  const char* name;
  DType dtype;
  std::int64_t heads, size;
};
using Fields = std::vector<Field>;
std::int64_t row_bytes(const Fields& fields, std::int64_t batch);

struct Bundle {
  std::vector<Tensor> tensors;
  Bundle rows(std::int64_t begin, std::int64_t end) const;
};
Bundle allocate_bundle(Context& ctx, const Fields& fields, std::int64_t batch, std::int64_t rows);
// One message per tensor; none where there is no row, which both sides know.
void append(std::vector<Message>& messages, int peer, const Fields& fields, const Bundle& bundle,
            int step);

// What travels when keys stay: queries one way, results back.
struct Cargo {
  Fields queries, results;
};
Cargo forward_cargo(const Problem& problem);   // q; out in the storage type, lse
Cargo backward_cargo(const Problem& problem);  // q, d_out, lse, delta; d_q in the accumulator type

}  // namespace sp
