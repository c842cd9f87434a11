// Shape checks and charging of the kernels of linear attention, once for every back-end.
// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>

#include "optimized/kernels/kernels.hpp"

namespace sp {
namespace {

using Extents = Tensor::Extents;

void check_shape(const Tensor& tensor, const Extents& shape, const char* what) {
  SP_CHECK(tensor.defined() && tensor.shape() == shape, what);
}

void check_accumulator(const Tensor& tensor, const Extents& shape, const char* what) {
  check_shape(tensor, shape, what);
  SP_CHECK(tensor.dtype() == accumulator_of(tensor.dtype()), what);
}

// A chunk whose queries, or whose keys and values, or both are in use.
struct Operands {
  bool queries;
  bool keys;
};

class Chunk {
 public:
  Chunk(const LinearBlock& block, Operands operands) : block_(block), operands_(operands) {
    const LinearTerms& terms = block.terms;
    SP_CHECK(terms.chunk > 0, "sub-chunks have at least one token");
    SP_CHECK(block.tokens.stride == 1 || block.tokens.count == 0, "a chunk is a run of neighbours");
    const Tensor& any = operands.queries ? block.q : block.k;
    SP_CHECK(any.defined(), "a chunk needs its queries or keys");
    n_ = block.tokens.count;
    shape_.B = any.extent(1);
    shape_.D = any.extent(3);
    shape_.F = features_of(terms.module, shape_.D);
    if (operands.keys) {
      check_shape(block.k, {n_, shape_.B, block.k.extent(2), shape_.D}, "k disagrees with q");
      check_shape(block.v, {n_, shape_.B, block.k.extent(2), block.v.extent(3)},
                  "v disagrees with k");
      shape_.W = width(block.v.extent(3));
    }
    if (decay() == Decay::kPerHead) {
      shape_.H = terms.log_decay.extent(2);
      check_accumulator(terms.log_decay, {1, 1, shape_.H, 1}, "log_decay is [1, 1, H, 1]");
    }
    if (decay() == Decay::kPerChannel) {
      shape_.H = terms.log_decay.extent(2);
      check_accumulator(terms.log_decay, {n_, shape_.B, shape_.H, shape_.D},
                        "log_decay is [n, B, H, D]");
    }
    if (operands.queries) {
      if (decay() == Decay::kNone) shape_.H = block.q.extent(2);
      check_shape(block.q, {n_, shape_.B, shape_.H, shape_.D}, "q disagrees with the decay");
    }
    if (operands.keys && (operands.queries || decay() != Decay::kNone)) {
      const std::int64_t G = block.k.extent(2);
      SP_CHECK(G > 0 && shape_.H % G == 0, "query heads are no multiple of key heads");
    }
    shape_.SH = decay() != Decay::kNone ? shape_.H : operands.keys ? block.k.extent(2) : 0;
    if (terms.module != Module::kRebased) return;
    check_accumulator(terms.gamma, {1, 1, 1, shape_.D}, "gamma is [1, 1, 1, D]");
    check_accumulator(terms.beta, {1, 1, 1, shape_.D}, "beta is [1, 1, 1, D]");
  }

  Decay decay() const { return decay_of(block_.terms.module); }
  std::int64_t width(std::int64_t E) const {
    return E + (is_normalised(block_.terms.module) ? 1 : 0);
  }

  // [n, B, H, W] of output, or of its gradient.
  void check_sums(const Tensor& sums, const char* what) {
    SP_CHECK(sums.defined(), what);
    if (!operands_.keys) shape_.W = sums.extent(3);
    check_shape(sums, {n_, shape_.B, shape_.H, shape_.W}, what);
  }
  // [F, B, SH, W] if it is defined at all.
  void check_state(const Tensor& state, const char* what, std::int64_t more_columns = 0) {
    if (!state.defined()) return;
    if (shape_.SH == 0) shape_.SH = state.extent(2);
    SP_CHECK(shape_.SH > 0 && (!operands_.queries || shape_.H % shape_.SH == 0), what);
    check_accumulator(state, {shape_.F, shape_.B, shape_.SH, shape_.W + more_columns}, what);
  }
  void check_parameters(const LinearGradients& gradients) const {
    const Extents row{1, 1, 1, shape_.D};
    if (decay() != Decay::kNone) {
      check_accumulator(gradients.decay_terms, terms_shape(),
                        "decay_terms disagree with the decay");
    }
    if (block_.terms.module != Module::kRebased) return;
    check_accumulator(gradients.d_gamma, row, "d_gamma is [1, 1, 1, D]");
    check_accumulator(gradients.d_beta, row, "d_beta is [1, 1, 1, D]");
  }
  void check_d_q(const LinearGradients& gradients) const {
    check_accumulator(gradients.d_q, block_.q.shape(), "d_q disagrees with q");
    check_parameters(gradients);
  }
  void check_d_kv(const LinearGradients& gradients) const {
    check_accumulator(gradients.d_k, block_.k.shape(), "d_k disagrees with k");
    check_accumulator(gradients.d_v, block_.v.shape(), "d_v disagrees with v");
    check_parameters(gradients);
  }

  Extents terms_shape() const {
    return {n_, shape_.B, shape_.H, decay() == Decay::kPerChannel ? shape_.D : 1};
  }
  const LinearShape& shape() const { return shape_; }
  LinearFlops flops() const { return linear_flops(shape_, n_, block_.terms.chunk); }

  // What a kernel reads in any case, and `more`.
  std::vector<Tensor> reads(std::vector<Tensor> more) const {
    const LinearTerms& terms = block_.terms;
    if (operands_.queries) more.push_back(block_.q);
    if (operands_.keys) {
      more.push_back(block_.k);
      more.push_back(block_.v);
    }
    if (decay() != Decay::kNone) more.push_back(terms.log_decay);
    if (terms.module == Module::kRebased) {
      more.push_back(terms.gamma);
      more.push_back(terms.beta);
    }
    return more;
  }

 private:
  const LinearBlock& block_;
  const Operands operands_;
  std::int64_t n_ = 0;
  LinearShape shape_{};
};

void check_left_block(const AttentionBlock& block, const LinearTerms& terms) {
  const Extents& q = block.q.shape();
  const Extents& k = block.k.shape();
  SP_CHECK(block.q.defined() && block.k.defined() && block.v.defined(),
           "a block of linear attention needs q, k, v");
  SP_CHECK(q[1] == k[1] && q[3] == k[3] && k[2] > 0 && q[2] % k[2] == 0, "q and k disagree");
  check_shape(block.v, {k[0], k[1], k[2], block.v.extent(3)}, "v disagrees with k");
  SP_CHECK(block.q_tokens.count() == q[0] && block.k_tokens.count() == k[0],
           "positions do not match their tensors");
  SP_CHECK(!is_normalised(terms.module) && decay_of(terms.module) != Decay::kPerChannel,
           "the left product has one decay per head and no map");
  if (decay_of(terms.module) == Decay::kPerHead) {
    check_accumulator(terms.log_decay, {1, 1, q[2], 1}, "log_decay is [1, 1, H, 1]");
  }
}

}  // namespace

void Kernels::linear_state(const LinearBlock& block, const Tensor& state) {
  Chunk chunk(block, {.queries = false, .keys = true});
  SP_CHECK(state.defined(), "linear_state needs a state");
  const bool summed = chunk.decay() == Decay::kPerChannel && state.extent(3) == chunk.shape().W + 1;
  chunk.check_state(state, "state disagrees with k and v", summed ? 1 : 0);
  charge_defined("linear_state", chunk.flops().state, chunk.reads({}), {state});
  do_linear_state(block, state);
}

void Kernels::linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                                const LinearTerms& terms) {
  const Extents& shape = into.shape();
  check_accumulator(into, shape, "linear_accumulate needs an accumulator");
  const Decay decay = decay_of(terms.module);
  if (decay == Decay::kPerHead) {
    check_accumulator(terms.log_decay, {1, 1, shape[2], 1}, "log_decay is [1, 1, H, 1]");
  }
  std::vector<Tensor> reads{into};
  for (const StateSpan& span : spans) {
    SP_CHECK(span.state.defined() && span.state.extent(3) >= shape[3],
             "a span has too few columns");
    check_accumulator(span.state, {shape[0], shape[1], shape[2], span.state.extent(3)},
                      "the state of a span disagrees");
    SP_CHECK(span.tokens.stride == 1 || span.tokens.count == 0, "a span is a run of neighbours");
    reads.push_back(span.state.slice(3, 0, shape[3]));
    if (decay != Decay::kPerChannel) continue;
    check_accumulator(span.log_decay, {shape[0], shape[1], shape[2], 1},
                      "the log_decay of a span disagrees");
    reads.push_back(span.log_decay);
  }
  if (decay == Decay::kPerHead) reads.push_back(terms.log_decay);
  charge_defined("linear_accumulate", 0, std::move(reads), {into});
  do_linear_accumulate(into, spans, terms);
}

void Kernels::linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                             const Tensor& after) {
  Chunk chunk(block, {.queries = true, .keys = true});
  chunk.check_sums(sums, "sums disagree with q and v");
  check_accumulator(sums, sums.shape(), "sums need an accumulator");
  chunk.check_state(before, "the state before disagrees");
  chunk.check_state(after, "the state after disagrees");
  charge_defined("linear_forward", chunk.flops().forward, chunk.reads({before}), {sums, after});
  do_linear_forward(block, before, sums, after);
}

void Kernels::linear_inter(const LinearBlock& block, const Tensor& before, const Tensor& sums) {
  Chunk chunk(block, {.queries = true, .keys = false});
  chunk.check_sums(sums, "sums disagree with q");
  check_accumulator(sums, sums.shape(), "sums need an accumulator");
  SP_CHECK(before.defined(), "linear_inter needs a state");
  chunk.check_state(before, "the state before disagrees");
  charge_defined("linear_inter", chunk.flops().inter, chunk.reads({before, sums}), {sums});
  do_linear_inter(block, before, sums);
}

void Kernels::linear_output(const Tensor& out, const Tensor& sums, double epsilon) {
  const Extents& shape = sums.shape();
  const std::int64_t E = out.extent(3);
  check_shape(out, {shape[0], shape[1], shape[2], E}, "out disagrees with sums");
  SP_CHECK(shape[3] == E || shape[3] == E + 1, "sums have at most one column more than out");
  check_accumulator(sums, shape, "sums need an accumulator");
  charge_defined("linear_output", 0, {sums}, {out});
  do_linear_output(out, sums, epsilon);
}

void Kernels::linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                                     double epsilon) {
  const Extents& shape = sums.shape();
  const std::int64_t E = d_out.extent(3);
  check_shape(d_sums, shape, "d_sums disagrees with sums");
  check_shape(d_out, {shape[0], shape[1], shape[2], E}, "d_out disagrees with sums");
  SP_CHECK(shape[3] == E || shape[3] == E + 1, "sums have at most one column more than d_out");
  check_accumulator(sums, shape, "sums need an accumulator");
  charge_defined("linear_output_backward", 0, {d_out, sums}, {d_sums});
  do_linear_output_backward(d_sums, d_out, sums, epsilon);
}

void Kernels::linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                             const Tensor& d_state) {
  Chunk chunk(block, {.queries = true, .keys = false});
  chunk.check_sums(d_sums, "d_sums disagrees with q");
  SP_CHECK(d_state.defined(), "linear_d_state needs a state");
  chunk.check_state(d_state, "d_state disagrees with q");
  charge_defined("linear_d_state", chunk.flops().state, chunk.reads({d_sums}), {d_state});
  do_linear_d_state(block, d_sums, d_state);
}

void Kernels::linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                         const LinearGradients& gradients, const Tensor& after) {
  Chunk chunk(block, {.queries = true, .keys = true});
  chunk.check_sums(d_sums, "d_sums disagrees with q and v");
  chunk.check_state(before, "the state before disagrees");
  chunk.check_state(after, "the state after disagrees");
  chunk.check_d_q(gradients);
  const std::vector<Tensor> sums{gradients.d_q, gradients.decay_terms, gradients.d_gamma,
                                 gradients.d_beta};
  std::vector<Tensor> reads = chunk.reads({before, d_sums});
  reads.insert(reads.end(), sums.begin(), sums.end());
  std::vector<Tensor> writes = sums;
  writes.push_back(after);
  charge_defined("linear_d_q", chunk.flops().d_q, std::move(reads), std::move(writes));
  do_linear_d_q(block, before, d_sums, gradients, after);
}

void Kernels::linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                          const LinearGradients& gradients, const Tensor& d_before) {
  Chunk chunk(block, {.queries = true, .keys = true});
  chunk.check_sums(d_sums, "d_sums disagrees with q and v");
  chunk.check_state(d_after, "d_after disagrees");
  chunk.check_state(d_before, "d_before disagrees");
  chunk.check_d_kv(gradients);
  const std::vector<Tensor> sums{gradients.d_k, gradients.d_v, gradients.decay_terms,
                                 gradients.d_gamma, gradients.d_beta};
  std::vector<Tensor> reads = chunk.reads({d_after, d_sums});
  reads.insert(reads.end(), sums.begin(), sums.end());
  std::vector<Tensor> writes = sums;
  writes.push_back(d_before);
  charge_defined("linear_d_kv", chunk.flops().d_kv, std::move(reads), std::move(writes));
  do_linear_d_kv(block, d_after, d_sums, gradients, d_before);
}

void Kernels::linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                                const LinearGradients& gradients) {
  Chunk chunk(block, {.queries = false, .keys = true});
  SP_CHECK(d_after.defined(), "linear_d_kv_inter needs a state");
  chunk.check_state(d_after, "d_after disagrees");
  chunk.check_d_kv(gradients);
  const std::vector<Tensor> sums{gradients.d_k, gradients.d_v, gradients.decay_terms,
                                 gradients.d_gamma, gradients.d_beta};
  std::vector<Tensor> reads = chunk.reads({d_after});
  reads.insert(reads.end(), sums.begin(), sums.end());
  charge_defined("linear_d_kv_inter", chunk.flops().d_kv_inter, std::move(reads), sums);
  do_linear_d_kv_inter(block, d_after, gradients);
}

void Kernels::linear_d_decay(const LinearBlock& block, const Tensor& decay_terms,
                             const Tensor& after, const Tensor& d_after,
                             const Tensor& d_log_decay) {
  const Decay decay = decay_of(block.terms.module);
  SP_CHECK(decay != Decay::kNone, "this module has no decay");
  const Extents& shape = decay_terms.shape();
  const bool per_head = decay == Decay::kPerHead;
  check_accumulator(decay_terms, {block.tokens.count, shape[1], shape[2], per_head ? 1 : shape[3]},
                    "decay_terms disagree with the chunk");
  check_accumulator(d_log_decay, per_head ? Extents{1, 1, shape[2], 1} : shape,
                    "d_log_decay disagrees with decay_terms");
  if (after.defined() && d_after.defined()) {
    check_accumulator(after, {after.extent(0), shape[1], shape[2], after.extent(3)},
                      "the state after disagrees");
    check_accumulator(d_after, after.shape(), "d_after disagrees with the state");
    SP_CHECK(per_head || after.extent(0) == shape[3], "a state has one row per channel");
  }
  charge_defined("linear_d_decay", 0, {decay_terms, after, d_after}, {d_log_decay});
  do_linear_d_decay(block, decay_terms, after, d_after, d_log_decay);
}

void Kernels::linear_apply(const LinearBlock& block, const Tensor& state, const Tensor& sums) {
  Chunk chunk(block, {.queries = true, .keys = false});
  chunk.check_sums(sums, "sums disagree with q");
  check_accumulator(sums, sums.shape(), "sums need an accumulator");
  SP_CHECK(state.defined(), "linear_apply needs a state");
  chunk.check_state(state, "the state disagrees");
  charge_defined("linear_apply", chunk.flops().inter, chunk.reads({state, sums}), {sums});
  do_linear_apply(block, state, sums);
}

void Kernels::linear_apply_d_q(const LinearBlock& block, const Tensor& state, const Tensor& d_sums,
                               const LinearGradients& gradients) {
  Chunk chunk(block, {.queries = true, .keys = false});
  chunk.check_sums(d_sums, "d_sums disagrees with q");
  SP_CHECK(state.defined(), "linear_apply_d_q needs a state");
  chunk.check_state(state, "the state disagrees");
  chunk.check_d_q(gradients);
  const std::vector<Tensor> sums{gradients.d_q, gradients.d_gamma, gradients.d_beta};
  std::vector<Tensor> reads = chunk.reads({state, d_sums});
  reads.insert(reads.end(), sums.begin(), sums.end());
  charge_defined("linear_apply_d_q", chunk.flops().inter, std::move(reads), sums);
  do_linear_apply_d_q(block, state, d_sums, gradients);
}

void Kernels::linear_block(const AttentionBlock& block, const LinearTerms& terms,
                           const Tensor& sums) {
  check_left_block(block, terms);
  const Extents& q = block.q.shape();
  const std::int64_t E = block.v.extent(3);
  check_accumulator(sums, {q[0], q[1], q[2], E}, "sums disagree with q and v");
  const std::int64_t pairs = visible_pairs(block.mask.band, block.q_tokens, block.k_tokens);
  charge_defined("linear_block", attention_flops(pairs, q[1], q[2], q[3], E),
                 {block.q, block.k, block.v, terms.log_decay, sums}, {sums});
  do_linear_block(block, terms, sums);
}

void Kernels::linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                    const Tensor& d_out, const AttentionGradients& gradients,
                                    const Tensor& d_log_decay) {
  check_left_block(block, terms);
  const Extents& q = block.q.shape();
  const std::int64_t E = block.v.extent(3);
  check_shape(d_out, {q[0], q[1], q[2], E}, "d_out disagrees with q and v");
  check_accumulator(gradients.d_q, q, "d_q disagrees with q");
  check_accumulator(gradients.d_k, block.k.shape(), "d_k disagrees with k");
  check_accumulator(gradients.d_v, block.v.shape(), "d_v disagrees with v");
  if (decay_of(terms.module) != Decay::kNone) {
    check_accumulator(d_log_decay, {1, 1, q[2], 1}, "d_log_decay is [1, 1, H, 1]");
  }
  const std::int64_t pairs = visible_pairs(block.mask.band, block.q_tokens, block.k_tokens);
  const std::vector<Tensor> sums{gradients.d_q, gradients.d_k, gradients.d_v, d_log_decay};
  std::vector<Tensor> reads{block.q, block.k, block.v, terms.log_decay, d_out};
  reads.insert(reads.end(), sums.begin(), sums.end());
  charge_defined("linear_block_backward", attention_backward_flops(pairs, q[1], q[2], q[3], E),
                 std::move(reads), sums);
  do_linear_block_backward(block, terms, d_out, gradients, d_log_decay);
}

}  // namespace sp
