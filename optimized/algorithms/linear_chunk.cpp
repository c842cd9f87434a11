// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/linear_chunk.hpp"

#include "optimized/algorithms/blocks.hpp"

namespace sp {

Run chunk_of(const Layout& layout, int rank) {
  const std::int64_t begin = part_begin(layout.size(), layout.ranks(), rank);
  return {begin, 1, part_begin(layout.size(), layout.ranks(), rank + 1) - begin};
}

LinearTerms linear_terms(const Shards& in) {
  const Problem& p = in.problem;
  return {.module = *p.module,
          .scale = p.scale,
          .epsilon = p.epsilon,
          .log_decay = in.log_decay,
          .gamma = in.gamma,
          .beta = in.beta,
          .segments = in.mask.segments,
          .causal = p.mask.causal};
}

LinearChunk::LinearChunk(Context& ctx, const Shards& in)
    : ctx_(ctx),
      in_(in),
      terms_(linear_terms(in)),
      shape_(linear_shape(in.problem.shape, terms_.module)),
      tokens_(chunk_of(in.layout, ctx.comm.rank())),
      accumulator_(accumulator_of(in.problem.dtype)) {
  SP_CHECK(in.layout.sharding() == Sharding::kContiguous, "states pass between contiguous chunks");
}

Tensor LinearChunk::state(const char* name) const {
  return ctx_.memory.allocate(accumulator_, {shape_.F, shape_.B, shape_.SH, shape_.W}, name);
}

Tensor LinearChunk::zero_state(const char* name) const {
  return zeros(ctx_, accumulator_, {shape_.F, shape_.B, shape_.SH, shape_.W}, name);
}

Tensor LinearChunk::message() const {
  const bool column = decay_of(terms_.module) == Decay::kPerChannel;
  const Tensor state = ctx_.memory.allocate(
      accumulator_, {shape_.F, shape_.B, shape_.SH, shape_.W + (column ? 1 : 0)}, "state");
  ctx_.kernels.linear_state(block(), state);
  return state;
}

Tensor LinearChunk::decay_column(const Tensor& message) const {
  if (decay_of(terms_.module) != Decay::kPerChannel) return {};
  return message.slice(3, shape_.W, shape_.W + 1);
}

Tensor LinearChunk::sums() const {
  return ctx_.memory.allocate(accumulator_, {tokens_.count, shape_.B, shape_.H, shape_.W}, "sums");
}

Tensor LinearChunk::output(const Tensor& sums) const {
  if (!is_normalised(terms_.module)) return to_storage(ctx_, sums, in_.problem.dtype, "out");
  const Tensor out = ctx_.memory.allocate(
      in_.problem.dtype, {tokens_.count, shape_.B, shape_.H, in_.problem.shape.E}, "out");
  ctx_.kernels.linear_output(out, sums, terms_.epsilon);
  return out;
}

Forward LinearChunk::finish(const Tensor& sums, const Tensor& before, const Tensor& decays) const {
  return {output(sums), {}, {before, decays, is_normalised(terms_.module) ? sums : Tensor()}};
}

Tensor LinearChunk::d_sums(const Forward& forward, const Tensor& d_out) const {
  if (!is_normalised(terms_.module)) return d_out;
  const Tensor d_sums =
      ctx_.memory.allocate(accumulator_, {tokens_.count, shape_.B, shape_.H, shape_.W}, "d_sums");
  ctx_.kernels.linear_output_backward(d_sums, d_out, forward.saved[2], terms_.epsilon);
  return d_sums;
}

LinearGradients LinearChunk::zero_gradients() const {
  LinearGradients gradients{zeros(ctx_, accumulator_, in_.q.shape(), "d_q"),
                            zeros(ctx_, accumulator_, in_.k.shape(), "d_k"),
                            zeros(ctx_, accumulator_, in_.v.shape(), "d_v"),
                            {},
                            {},
                            {}};
  if (decays()) {
    const std::int64_t channels =
        decay_of(terms_.module) == Decay::kPerChannel ? shape_.D : std::int64_t{1};
    gradients.decay_terms =
        zeros(ctx_, accumulator_, {tokens_.count, shape_.B, shape_.H, channels}, "d_log_decay");
  }
  if (terms_.module == Module::kRebased) {
    gradients.d_gamma = zeros(ctx_, accumulator_, {1, 1, 1, shape_.D}, "d_gamma");
    gradients.d_beta = zeros(ctx_, accumulator_, {1, 1, 1, shape_.D}, "d_beta");
  }
  return gradients;
}

Gradients LinearChunk::finish(const LinearGradients& g, const Tensor& after,
                              const Tensor& d_after) const {
  const DType dtype = in_.problem.dtype;
  Gradients result{to_storage(ctx_, g.d_q, dtype, "d_q"), to_storage(ctx_, g.d_k, dtype, "d_k"),
                   to_storage(ctx_, g.d_v, dtype, "d_v")};
  result.d_gamma = g.d_gamma;
  result.d_beta = g.d_beta;
  if (decays()) {
    result.d_log_decay =
        decay_of(terms_.module) == Decay::kPerChannel
            ? g.decay_terms
            : ctx_.memory.allocate(accumulator_, {1, 1, shape_.H, 1}, "d_log_decay");
    ctx_.kernels.linear_d_decay(block(), g.decay_terms, after, d_after, result.d_log_decay);
  }
  return result;
}

std::int64_t state_bytes(const Problem& problem) {
  const LinearShape s = linear_shape(problem.shape, *problem.module);
  return s.F * s.B * s.SH * s.W * static_cast<std::int64_t>(size_of(accumulator_of(problem.dtype)));
}

std::int64_t message_bytes(const Problem& problem) {
  const bool column = decay_of(*problem.module) == Decay::kPerChannel;
  return state_bytes(problem) +
         (column ? state_bytes(problem) / linear_shape(problem.shape, *problem.module).W : 0);
}

LinearFlops linear_flops_of(const Problem& problem, std::int64_t n) {
  return linear_flops(linear_shape(problem.shape, *problem.module), n, kLinearChunk);
}

namespace {
Support refuse(const char* reason) { return tl::unexpected(Unsupported{reason}); }
}  // namespace

Support linear_only(const Problem& problem) {
  if (problem.family() == Family::kLinear) return {};
  return refuse("it computes linear attention, and the problem is of another family");
}

Support causal_linear(const Problem& problem) {
  if (const Support linear = linear_only(problem); !linear) return linear;
  if (!problem.mask.causal) {
    return refuse(
        "a state that passes from rank to rank knows earlier tokens only; it serves causal "
        "problems");
  }
  if (problem.mask.window > 0) {
    return refuse("the window part of Based needs the keys of earlier ranks; lasp2 fetches them");
  }
  return {};
}

Support constant_decay_only(const Problem& problem) {
  if (const Support linear = linear_only(problem); !linear) return linear;
  if (*problem.module == Module::kGla) {
    return refuse(
        "decays per token would have to travel with the keys; it serves basic, lightning, "
        "retention");
  }
  if (is_normalised(*problem.module)) {
    return refuse(
        "its blocks have no feature map and no normaliser; it serves basic, lightning, retention");
  }
  return {};
}

}  // namespace sp
