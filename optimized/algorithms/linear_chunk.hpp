// One rank's chunk of linear attention: the small steps that every algorithm takes which passes
// states between ranks.
//
// Contiguous layouts only: a state summarises all tokens before a position.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// The tokens of a rank; an empty chunk still has a place.
Run chunk_of(const Layout& layout, int rank);
LinearTerms linear_terms(const Shards& in);

class LinearChunk {
 public:
  LinearChunk(Context& ctx, const Shards& in);

  const LinearTerms& terms() const { return terms_; }
  LinearBlock block() const { return {in_.q, in_.k, in_.v, tokens_, terms_}; }
  bool decays() const { return decay_of(terms_.module) != Decay::kNone; }

  Tensor state(const char* name) const;  // [F, B, SH, W]
  Tensor zero_state(const char* name) const;
  // The chunk's own state as a message: per-channel decays add a column, the chunk's decay.
  Tensor message() const;
  StateSpan span(const Tensor& state, int rank, const Tensor& log_decay) const {
    return {state, chunk_of(in_.layout, rank), log_decay};
  }
  // The decay column of a message; undefined where there is none.
  Tensor decay_column(const Tensor& message) const;
  Tensor sums() const;  // [n, B, H, W]
  Tensor output(const Tensor& sums) const;

  // What backward needs again: the state before the chunk, decays if the algorithm wants them, and
  // the sums under a normaliser.
  Forward finish(const Tensor& sums, const Tensor& before, const Tensor& decays) const;
  static const Tensor& before(const Forward& forward) { return forward.saved[0]; }
  static const Tensor& decays(const Forward& forward) { return forward.saved[1]; }

  Tensor d_sums(const Forward& forward, const Tensor& d_out) const;
  LinearGradients zero_gradients() const;
  // `after` and `d_after`, the state and its gradient at the chunk's end, serve the decays.
  Gradients finish(const LinearGradients& gradients, const Tensor& after,
                   const Tensor& d_after) const;

 private:
  Context& ctx_;
  const Shards& in_;
  LinearTerms terms_;
  LinearShape shape_;
  Run tokens_;
  DType accumulator_;
};

// For cost(): bytes of a state, and of a state as it travels, with its decay.
std::int64_t state_bytes(const Problem& problem);
std::int64_t message_bytes(const Problem& problem);
LinearFlops linear_flops_of(const Problem& problem, std::int64_t n);

// Refuses what no algorithm of linear attention serves.
Support linear_only(const Problem& problem);
Support causal_linear(const Problem& problem);        // and windows and bidirectional problems
Support constant_decay_only(const Problem& problem);  // basic, Lightning, Retention

}  // namespace sp
