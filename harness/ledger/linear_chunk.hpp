// A chunk of linear attention as the ledger reads it, and states as it writes them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/ledger/books.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::ledger {

// Whether the token at a position begins a document.
bool begins(const LinearTerms& terms, std::int64_t b, std::int64_t position);
inline bool decays(const LinearTerms& terms) { return decay_of(terms.module) != Decay::kNone; }

// States [F, B, SH, W]: every row f is of the same tokens. An undefined one is empty.
Flow read_state(const Tensor& state, std::int64_t b, std::int64_t s);
void write_state(const Tensor& state, std::int64_t b, std::int64_t s, const Flow& flow);

// Throw Error(kInternal) where scale, epsilon or parameters are others than the problem's, or where
// local head h, which is `query_head` of the books, has the decays of another.
void check_terms(const Books& books, const LinearTerms& terms);
void check_decays(const Books& books, const LinearTerms& terms,
                  const std::vector<std::int64_t>& positions, std::int64_t b, std::int64_t h,
                  std::int64_t query_head);

// What one token adds to a state, or to the gradient of one.
Flow of_key(std::int64_t b, std::int64_t key_head, std::int64_t position);
Flow of_query(std::int64_t b, std::int64_t head, std::int64_t position);

// Query heads share state heads where there is no decay. Heads are local; those of the books are
// found by reading operands, which must be where the chunk says they are.
class Chunk {
 public:
  Chunk(const Books& books, const LinearBlock& block);

  std::int64_t tokens() const { return block_.tokens.count; }
  std::int64_t position(std::int64_t i) const { return block_.tokens.position(i); }
  bool begins(std::int64_t b, std::int64_t i) const {
    return ledger::begins(block_.terms, b, position(i));
  }
  std::int64_t crossing() const { return decays(block_.terms) ? 1 : 0; }
  // Goes on to token i: what a state held crosses a border, or is forgotten.
  void step(Flow& flow, std::int64_t b, std::int64_t i) const {
    if (begins(b, i)) flow = {};
    flow.cross(crossing());
  }

  std::int64_t key_head(std::int64_t b, std::int64_t g) const;  // of keys and values
  std::int64_t query_head(std::int64_t b, std::int64_t h) const;
  // The query head whose gradient of sums these rows are.
  std::int64_t gradient_head(const Tensor& d_sums, std::int64_t b, std::int64_t h) const;

  // f(b, state head, key head of the books)
  template <class F>
  void for_each_state_head(std::int64_t state_heads, F&& f) const {
    const std::int64_t per_key = state_heads / block_.k.extent(2);
    for (std::int64_t b = 0; b < block_.k.extent(1); ++b) {
      for (std::int64_t s = 0; s < state_heads; ++s)
        f(b, s, tokens() == 0 ? 0 : key_head(b, s / per_key));
    }
  }

  // f(i, b, query head, what its query sees) for every query of a causal chunk that begins with the
  // state `before`; writes the state at its end.
  template <class F>
  void for_each_query(const Tensor& before, const Tensor& after, F&& f) const {
    const std::int64_t H = block_.q.extent(2);
    const std::int64_t SH = decays(block_.terms) ? H : block_.k.extent(2), group = H / SH;
    for_each_state_head(SH, [&](std::int64_t b, std::int64_t s, std::int64_t key) {
      check_queries(b, s * group, (s + 1) * group, key);
      Flow state = read_state(before, b, s);
      for (std::int64_t i = 0; i < tokens(); ++i) {
        step(state, b, i);
        state += of_key(b, key, position(i));
        for (std::int64_t h = s * group; h < (s + 1) * group; ++h) f(i, b, h, state);
      }
      write_state(after, b, s, state);
    });
  }

  // f(i, b, query head, what its query sees of a state alone); `borders`: the state crosses them on
  // its way and is forgotten where a document begins, else every query sees it as it is.
  template <class F>
  void for_each_query_of(const Tensor& state, bool borders, F&& f) const {
    const std::int64_t H = block_.q.extent(2), SH = state.extent(2);
    for (std::int64_t b = 0; b < block_.q.extent(1); ++b) {
      for (std::int64_t h = 0; h < H; ++h) {
        if (tokens() > 0) query_head(b, h);
        Flow flow = read_state(state, b, h * SH / H);
        for (std::int64_t i = 0; i < tokens(); ++i) {
          if (borders) step(flow, b, i);
          f(i, b, h, flow);
        }
      }
    }
  }

 private:
  void check_queries(std::int64_t b, std::int64_t begin, std::int64_t end, std::int64_t key) const;

  const Books& books_;
  const LinearBlock& block_;
  std::vector<std::int64_t> positions_;
};

}  // namespace sp::ledger
