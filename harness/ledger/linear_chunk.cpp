// SPDX-License-Identifier: Apache-2.0
#include "harness/ledger/linear_chunk.hpp"

#include <fmt/format.h>

#include <cmath>

#include "harness/ledger/blocks.hpp"

namespace sp::ledger {

using std::int64_t;

bool begins(const LinearTerms& terms, int64_t b, int64_t position) {
  if (position == 0) return true;
  if (!terms.segments.defined()) return false;
  const std::int32_t* ids =
      terms.segments.as<std::int32_t>() + b * terms.segments.extent(1) + position;
  return ids[0] != ids[-1];
}

Flow read_state(const Tensor& state, int64_t b, int64_t s) {
  if (!state.defined() || state.extent(0) == 0) return {};
  const Row first(state, 0, b, s);
  const auto number = [&](int64_t column) {
    if (!(std::abs(first[column]) < 0x1p53)) refuse("a state that nobody wrote");
    return static_cast<int64_t>(first[column]);
  };
  const Flow flow{number(0), number(1), number(2)};
  for (int64_t f = 0; f < state.extent(0); ++f) {
    if (!Row(state, f, b, s).holds(flow, f))
      refuse(fmt::format("row {} of a state is not of the same tokens as row 0", f));
  }
  return flow;
}

void write_state(const Tensor& state, int64_t b, int64_t s, const Flow& flow) {
  if (!state.defined()) return;
  for (int64_t f = 0; f < state.extent(0); ++f) Row(state, f, b, s).write(flow, f);
}

void check_terms(const Books& books, const LinearTerms& terms) {
  expect_scale(terms.scale, books.problem.scale);
  expect_scale(terms.epsilon, books.problem.epsilon);
  if (!terms.gamma.defined()) return;
  if (read(Row(terms.gamma, 0, 0, 0), Operand::kGamma) != Place{Operand::kGamma} ||
      read(Row(terms.beta, 0, 0, 0), Operand::kBeta) != Place{Operand::kBeta})
    refuse("gamma or beta is another's");
}

void check_decays(const Books& books, const LinearTerms& terms,
                  const std::vector<int64_t>& positions, int64_t b, int64_t h, int64_t query_head) {
  const int64_t head = query_head % books.problem.shape.H;  // all layers of a stack share them
  const Decay kind = decay_of(terms.module);
  const Tensor& decay = terms.log_decay;
  if (kind == Decay::kPerHead) {
    if (read(Row(decay, 0, 0, h), Operand::kLogDecay) != Place{Operand::kLogDecay, 0, 0, head})
      refuse(fmt::format("head {} has the decay of another", head));
  }
  if (kind == Decay::kPerChannel) {
    if (head_of(books, decay, Operand::kLogDecay, positions, b, h) != head)
      refuse(fmt::format("head {} has the decays of another", head));
  }
}

Flow of_key(int64_t b, int64_t key_head, int64_t position) {
  return {Weights(Sum::kState, b, key_head, 0)[position], 1, 0};
}
Flow of_query(int64_t b, int64_t head, int64_t position) {
  return {Weights(Sum::kDState, b, head, 0)[position], 1, 0};
}

Chunk::Chunk(const Books& books, const LinearBlock& block) : books_(books), block_(block) {
  check_terms(books, block.terms);
  for (int64_t i = 0; i < tokens(); ++i) positions_.push_back(position(i));
}

int64_t Chunk::key_head(int64_t b, int64_t g) const {
  const int64_t head = head_of(books_, block_.k, Operand::kKey, positions_, b, g);
  if (head_of(books_, block_.v, Operand::kValue, positions_, b, g) != head)
    refuse(fmt::format("key head {} meets the values of another", head));
  return head;
}

int64_t Chunk::query_head(int64_t b, int64_t h) const {
  const int64_t head = head_of(books_, block_.q, Operand::kQuery, positions_, b, h);
  check_decays(books_, block_.terms, positions_, b, h, head);
  return head;
}

int64_t Chunk::gradient_head(const Tensor& d_sums, int64_t b, int64_t h) const {
  const int64_t head = query_head(b, h);
  if (head_of(books_, d_sums, Operand::kGradient, positions_, b, h) != head)
    refuse(fmt::format("head {} has the gradient of another", head));
  return head;
}

void Chunk::check_queries(int64_t b, int64_t begin, int64_t end, int64_t key) const {
  for (int64_t h = begin; h < end && tokens() > 0; ++h) {
    if (books_.key_head_of(query_head(b, h)) != key)
      refuse(fmt::format("a query head meets key head {}, which is not its own", key));
  }
}

}  // namespace sp::ledger
