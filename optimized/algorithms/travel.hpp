// Blocks that travel: structs of tensors with the same rows, which list their fields by name.
//
// A block has `static constexpr auto fields()`, an array of Field. A field that a pass does not need
// is undefined: it takes no room and no message.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <numeric>
#include <vector>

#include "optimized/algorithms/blocks.hpp"

namespace sp {

template <class Block>
struct Field {
  const char* name;  // of its messages, and of the tensor that is allocated for it
  Tensor Block::* tensor;
};

// The same for all fields that there are.
template <class Block>
std::int64_t row_count(const Block& block) {
  for (const auto& field : Block::fields()) {
    const Tensor& tensor = block.*field.tensor;
    if (tensor.defined()) return tensor.extent(0);
  }
  return 0;
}

template <class Block>
Block rows_of(Block block, Rows rows) {
  for (const auto& field : Block::fields()) {
    Tensor& tensor = block.*field.tensor;
    if (tensor.defined()) tensor = tensor.rows(rows.begin, rows.end);
  }
  return block;
}

template <class Block>
Block first_rows(const Block& block, std::int64_t count) {
  return rows_of(block, Rows{0, count});
}

// The same fields with so many rows; contents unspecified.
template <class Block>
Block allocate_block(Context& ctx, const Block& like, std::int64_t rows) {
  Block block;
  for (const auto& field : Block::fields()) {
    const Tensor& tensor = like.*field.tensor;
    if (tensor.defined())
      block.*field.tensor = allocate_like(ctx, tensor, tensor.dtype(), rows, field.name);
  }
  return block;
}

// One message per field, of blocks without rows too.
template <class Block>
void append_all(std::vector<Message>& messages, int peer, const Block& block, int step) {
  for (const auto& field : Block::fields()) {
    const Tensor& tensor = block.*field.tensor;
    if (tensor.defined()) messages.push_back({peer, tensor, {field.name, step}});
  }
}

// The same, but nothing for a block without rows: both sides know how many there are.
template <class Block>
void append(std::vector<Message>& messages, int peer, const Block& block, int step) {
  if (row_count(block) > 0) append_all(messages, peer, block, step);
}

// The blocks of all ranks of `comm`, with their tokens, one after the other: an all-gather of every
// field, on its way. `layout` is that of these ranks.
template <class Block>
class Gathering {
 public:
  Gathering(Context& ctx, Communicator& comm, const Block& own, const Layout& layout) {
    const std::vector<std::int64_t> counts = layout.counts();
    all_ = allocate_block(ctx, own, std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    for (int rank = 0; rank < layout.ranks(); ++rank) all_.tokens.append(layout.tokens(rank));
    for (const auto& [name, tensor] : Block::fields()) {
      if (!(own.*tensor).defined()) continue;
      pending_.push_back(comm.all_gather(own.*tensor, parts_of(all_.*tensor, counts), {name, 0}));
    }
  }
  const Block& wait() {
    for (Pending& each : pending_) each.wait();
    return all_;
  }

 private:
  Block all_;
  std::vector<Pending> pending_;
};

// What a block costs on its way, per row: what its fields add up to, and one message for each.
struct Freight {
  std::int64_t bytes = 0, messages = 0;
  // Of a block of so many rows; an empty one is not sent.
  Traffic of(std::int64_t rows) const {
    return rows == 0 ? Traffic{} : Traffic{rows * bytes, messages};
  }
};

}  // namespace sp
