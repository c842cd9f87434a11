// Faults in the arithmetic of the kernels that an algorithm calls: rounding, merging, gradients.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "harness/mutants/faulty_kernels.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct CarryInStorage : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_merge(const Partial& into, const Partial& from) override {
    FaultyKernels::do_merge(into, from);
    round_to(into.out, storage_);
  }
};

struct GradientCarryInStorage : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_add(const Tensor& target, const Tensor& source) override {
    FaultyKernels::do_add(target, source);
    round_to(target, storage_);
  }
};

struct PartialInStorage : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    FaultyKernels::do_attention(block, result);
    round_to(result.out, storage_);
  }
};

struct LseInStorage : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    FaultyKernels::do_attention(block, result);
    round_to(result.lse, storage_);
  }
};

// The merges of early releases, in single precision as they were.
struct MergeWithoutMaximum : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_merge(const Partial& into, const Partial& from) override {
    each_row(into, from, [](Row a, Row b) {
      const double wa = std::exp(static_cast<float>(a.lse())),
                   wb = std::exp(static_cast<float>(b.lse()));
      a.blend(b, static_cast<float>(wb / (wa + wb)));
      a.set_lse(std::log(static_cast<float>(wa + wb)));
    });
  }
};

struct MergeThatOverflows : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_merge(const Partial& into, const Partial& from) override {
    each_row(into, from, [](Row a, Row b) {
      const auto gap = static_cast<float>(b.lse() - a.lse());
      const double merged = a.lse() + static_cast<double>(std::log(1 + std::exp(gap)));
      a.blend(b, std::exp(b.lse() - merged));
      a.set_lse(merged);
    });
  }
};

struct MergeKeepsLse : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_merge(const Partial& into, const Partial& from) override {
    const std::vector<double> before = values_of(into.lse);
    FaultyKernels::do_merge(into, from);
    if (before.empty() || std::isinf(before.front())) return;  // the first merge is right
    assign(into.lse, before);
  }
};

struct MergeTwice : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_merge(const Partial& into, const Partial& from) override {
    FaultyKernels::do_merge(into, from);
    if (++merges_ == 2) FaultyKernels::do_merge(into, from);
  }
  int merges_ = 0;
};

struct MergeWeightsSwapped : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_merge(const Partial& into, const Partial& from) override {
    const std::vector<double> a = values_of(into.lse), b = values_of(from.lse);
    FaultyKernels::do_merge(into, from);
    each_row(into, from, [&, i = std::size_t{0}](Row row, Row other) mutable {
      const double x = a[i], y = b[i];
      ++i;
      if (std::isinf(x) || std::isinf(y)) return;
      row.scale((std::exp(x - y) + 2) / (std::exp(y - x) + 2));
      (void)other;
    });
  }
};

struct BackwardOfFirstKeys : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    AttentionBlock stale = block;
    if (!first_k_.defined()) {
      first_k_ = copy_of(memory_, block.k);
      first_v_ = copy_of(memory_, block.v);
    }
    if (first_k_.shape() == block.k.shape()) {
      stale.k = first_k_;
      stale.v = first_v_;
    }
    FaultyKernels::do_attention_backward(stale, d_out, lse, delta, gradients);
  }
  Tensor first_k_, first_v_;
};

// log-sum-exp, and on demand delta, of the block alone instead of the whole row.
template <bool kDeltaToo>
struct BackwardOfBlockRows : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    const Partial own{copy_of(memory_, d_out), copy_of(memory_, lse)};
    KernelsDecorator::do_attention(block, own);
    Tensor own_delta = delta;
    if (kDeltaToo) {
      own_delta = copy_of(memory_, delta);
      KernelsDecorator::do_attention_delta(own_delta, d_out, own.out);
    }
    FaultyKernels::do_attention_backward(block, d_out, kDeltaToo ? lse : own.lse, own_delta,
                                         gradients);
  }
};

struct BackwardWithoutDelta : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention_delta(const Tensor& delta, const Tensor&, const Tensor&) override {
    KernelsDecorator::do_fill(delta, 0);
  }
};

struct BackwardDropsQueriesGradient : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    AttentionGradients partly = gradients;
    if (++calls_ == 2) partly.d_q = copy_of(memory_, gradients.d_q);
    FaultyKernels::do_attention_backward(block, d_out, lse, delta, partly);
  }
  int calls_ = 0;
};

struct BackwardOverwrites : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    KernelsDecorator::do_fill(gradients.d_q, 0);
    FaultyKernels::do_attention_backward(block, d_out, lse, delta, gradients);
  }
};

struct StepSkipped : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    if (++calls_ != 2) return FaultyKernels::do_attention(block, result);
    KernelsDecorator::do_fill(result.out, 0);
    KernelsDecorator::do_fill(result.lse, -kInfinity);
  }
  int calls_ = 0;
};

struct EmptyRowsFinite : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    FaultyKernels::do_attention(block, result);
    std::vector<double> lse = values_of(result.lse);
    for (double& value : lse) value = std::isinf(value) ? 0 : value;
    assign(result.lse, lse);
  }
};

struct AddTwice : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_add(const Tensor& target, const Tensor& source) override {
    FaultyKernels::do_add(target, source);
    FaultyKernels::do_add(target, source);
  }
};

struct ScoresUnmasked : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                         const Tokens& k_tokens, const MaskTerms*) override {
    FaultyKernels::do_scores_softmax(scores, lse, q_tokens, k_tokens, nullptr);
  }
};

struct SoftmaxBackwardHalved : FaultyKernels {  // stands for the division by the number of ranks
  using FaultyKernels::FaultyKernels;
  void do_scores_softmax_backward(const Tensor& d_p, const Tensor& p, double scale) override {
    FaultyKernels::do_scores_softmax_backward(d_p, p, scale / 2);
  }
};

struct SoftmaxBackwardWithoutSum : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_scores_softmax_backward(const Tensor& d_p, const Tensor& p, double scale) override {
    const std::vector<double> weights = values_of(p);
    std::vector<double> gradient = values_of(d_p);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      gradient[i] = weights[i] == 0 ? 0 : scale * weights[i] * gradient[i];
    }
    assign(d_p, gradient);
  }
};

struct ProjectionGradientDropped : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                           const Tensor& projection, const Tensor& x) override {
    const Tensor scratch = copy_of(memory_, d_projection);
    FaultyKernels::do_project_backward(d_x, scratch, d_projected, projection, x);
  }
};

const std::vector<const char*> kMerging{"ring/contiguous", "ring/zigzag",
                                        "ring_bidirectional/zigzag", "token_ring/zigzag"};
const std::vector<const char*> kBlocks{"ring/contiguous", "ring/striped", "ring/zigzag",
                                       "token_ring/contiguous", "token_ring_hybrid"};

}  // namespace

std::vector<Mutant> kernel_mutants() {
  const char* classic = "classic";
  return {
      {"carry_in_storage",
       "accumulator rounded to storage after every merge",
       "ring-flash-attention #22, #42",
       {"ring/contiguous", "ring/zigzag"},
       make_faulty<CarryInStorage>,
       {}},
      // Not TokenRing's dQ: there the rounding of travelling results is as large.
      {"gradient_carry_in_storage",
       "gradients rounded to storage after every hop",
       "ring-flash-attention #67",
       {"ring/contiguous", "ring/zigzag", "token_ring_hybrid", "ring_linear"},
       make_faulty<GradientCarryInStorage>,
       {}},
      {"partial_in_storage",
       "block outputs rounded to storage before the merge",
       "flash-attention #1088",
       {"ring/zigzag", "ring/striped"},
       make_faulty<PartialInStorage>,
       {}},
      {"lse_in_storage",
       "log-sum-exp of a block rounded to storage",
       classic,
       kMerging,
       make_faulty<LseInStorage>,
       {}},
      {"merge_without_maximum",
       "merge weights exp(lse) not shifted by the maximum",
       "ring-flash-attention PR 30",
       kMerging,
       make_faulty<MergeWithoutMaximum>,
       {}},
      {"merge_overflows",
       "log(1 + exp(b - a)) overflows",
       "ring-flash-attention PR 34, ThunderKittens",
       kMerging,
       make_faulty<MergeThatOverflows>,
       {}},
      {"merge_keeps_lse",
       "merge updates out but not lse",
       classic,
       kMerging,
       make_faulty<MergeKeepsLse>,
       {}},
      {"merge_twice",
       "one partial result merged twice",
       classic,
       kMerging,
       make_faulty<MergeTwice>,
       {}},
      {"merge_weights_swapped",
       "weights of a merge exchanged",
       classic,
       kMerging,
       make_faulty<MergeWeightsSwapped>,
       {}},
      {"backward_stale_keys",
       "backward uses the keys of hop 0 at every hop",
       "diffusers #14265",
       {"ring/contiguous", "ring/zigzag", "ring_two_channel/zigzag"},
       make_faulty<BackwardOfFirstKeys>,
       {}},
      {"backward_block_lse",
       "backward uses log-sum-exp per block",
       "Megatron-LM #1464, TransformerEngine #1557, tt-metal #53205",
       kBlocks,
       make_faulty<BackwardOfBlockRows<false>>,
       {}},
      {"backward_block_out",
       "backward uses out (delta) per block",
       "Megatron-LM #1464, TransformerEngine #1557, tt-metal #53205",
       kBlocks,
       make_faulty<BackwardOfBlockRows<true>>,
       {}},
      {"backward_no_delta",
       "delta left out",
       classic,
       {"ring/zigzag", "allgather", "ulysses"},
       make_faulty<BackwardWithoutDelta>,
       {}},
      {"backward_drops_dq",
       "dQ of one step lost",
       classic,
       {"ring/contiguous", "ring/striped"},
       make_faulty<BackwardDropsQueriesGradient>,
       {}},
      {"backward_overwrites_dq",
       "dQ overwritten instead of added",
       classic,
       {"ring/zigzag", "ring/striped"},
       make_faulty<BackwardOverwrites>,
       {}},
      {"step_skipped",
       "one step's block never computed",
       classic,
       {"ring/contiguous", "ring/zigzag", "token_ring/zigzag"},
       make_faulty<StepSkipped>,
       {}},
      {"empty_rows_finite",
       "rows that see nothing get log-sum-exp 0",
       "ring-flash-attention PR 30",
       {"ring/zigzag", "ring/striped"},
       make_faulty<EmptyRowsFinite>,
       {}},
      {"add_twice",
       "received gradient added twice",
       classic,
       {"ring/contiguous", "token_ring/contiguous", "ring_linear"},
       make_faulty<AddTwice>,
       {}},
      {"scores_unmasked",
       "RSA softmax without the mask",
       classic,
       {"rsa", "rsa_skip"},
       make_faulty<ScoresUnmasked>,
       {}},
      {"rsa_gradient_divided",
       "RSA gradients divided by the ranks",
       "ColossalAI, since 2021",
       {"rsa", "rsa_linformer"},
       make_faulty<SoftmaxBackwardHalved>,
       {}},
      {"softmax_backward_no_sum",
       "softmax backward without the row sum",
       classic,
       {"rsa", "rsa_linformer"},
       make_faulty<SoftmaxBackwardWithoutSum>,
       {}},
      {"projection_gradient_lost",
       "gradient of the Linformer projections lost",
       classic,
       {"rsa_linformer"},
       make_faulty<ProjectionGradientDropped>,
       {}},
  };
}

}  // namespace sp
