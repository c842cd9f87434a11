// Faults in the kernels that an algorithm calls.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"
#include "optimized/kernels/cpu/cpu_memory.hpp"
#include "optimized/kernels/kernels_decorator.hpp"

namespace sp {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Keeps the storage type of the problem, which kernels on accumulators do not see.
class Faulty : public KernelsDecorator {
 public:
  using KernelsDecorator::KernelsDecorator;

 protected:
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    storage_ = block.q.dtype();
    KernelsDecorator::do_attention(block, result);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    storage_ = block.q.dtype();
    KernelsDecorator::do_attention_backward(block, d_out, lse, delta, gradients);
  }
  DType storage_ = DType::kF32;
};

struct CarryInStorage : Faulty {
  using Faulty::Faulty;
  void do_merge(const Partial& into, const Partial& from) override {
    Faulty::do_merge(into, from);
    round_to(into.out, storage_);
  }
};

struct GradientCarryInStorage : Faulty {
  using Faulty::Faulty;
  void do_add(const Tensor& target, const Tensor& source) override {
    Faulty::do_add(target, source);
    round_to(target, storage_);
  }
};

struct PartialInStorage : Faulty {
  using Faulty::Faulty;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    Faulty::do_attention(block, result);
    round_to(result.out, storage_);
  }
};

struct LseInStorage : Faulty {
  using Faulty::Faulty;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    Faulty::do_attention(block, result);
    round_to(result.lse, storage_);
  }
};

// The merges of early releases, in single precision as they were.
struct MergeWithoutMaximum : Faulty {
  using Faulty::Faulty;
  void do_merge(const Partial& into, const Partial& from) override {
    each_row(into, from, [](Row a, Row b) {
      const double wa = std::exp(static_cast<float>(a.lse())),
                   wb = std::exp(static_cast<float>(b.lse()));
      a.blend(b, static_cast<float>(wb / (wa + wb)));
      a.set_lse(std::log(static_cast<float>(wa + wb)));
    });
  }
};

struct MergeThatOverflows : Faulty {
  using Faulty::Faulty;
  void do_merge(const Partial& into, const Partial& from) override {
    each_row(into, from, [](Row a, Row b) {
      const auto gap = static_cast<float>(b.lse() - a.lse());
      const double merged = a.lse() + static_cast<double>(std::log(1 + std::exp(gap)));
      a.blend(b, std::exp(b.lse() - merged));
      a.set_lse(merged);
    });
  }
};

struct MergeKeepsLse : Faulty {
  using Faulty::Faulty;
  void do_merge(const Partial& into, const Partial& from) override {
    const std::vector<double> before = values_of(into.lse);
    Faulty::do_merge(into, from);
    if (before.empty() || std::isinf(before.front())) return;  // the first merge is right
    assign(into.lse, before);
  }
};

struct MergeTwice : Faulty {
  using Faulty::Faulty;
  void do_merge(const Partial& into, const Partial& from) override {
    Faulty::do_merge(into, from);
    if (++merges_ == 2) Faulty::do_merge(into, from);
  }
  int merges_ = 0;
};

struct MergeWeightsSwapped : Faulty {
  using Faulty::Faulty;
  void do_merge(const Partial& into, const Partial& from) override {
    const std::vector<double> a = values_of(into.lse), b = values_of(from.lse);
    Faulty::do_merge(into, from);
    each_row(into, from, [&, i = std::size_t{0}](Row row, Row other) mutable {
      const double x = a[i], y = b[i];
      ++i;
      if (std::isinf(x) || std::isinf(y)) return;
      row.scale((std::exp(x - y) + 2) / (std::exp(y - x) + 2));
      (void)other;
    });
  }
};

struct BackwardOfFirstKeys : Faulty {
  using Faulty::Faulty;
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
    Faulty::do_attention_backward(stale, d_out, lse, delta, gradients);
  }
  CpuMemory memory_;
  Tensor first_k_, first_v_;
};

// log-sum-exp, and on demand delta, of the block alone instead of the whole row.
template <bool kDeltaToo>
struct BackwardOfBlockRows : Faulty {
  using Faulty::Faulty;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    const Partial own{copy_of(memory_, d_out), copy_of(memory_, lse)};
    KernelsDecorator::do_attention(block, own);
    Tensor own_delta = delta;
    if (kDeltaToo) {
      own_delta = copy_of(memory_, delta);
      KernelsDecorator::do_attention_delta(own_delta, d_out, own.out);
    }
    Faulty::do_attention_backward(block, d_out, kDeltaToo ? lse : own.lse, own_delta, gradients);
  }
  CpuMemory memory_;
};

struct BackwardWithoutDelta : Faulty {
  using Faulty::Faulty;
  void do_attention_delta(const Tensor& delta, const Tensor&, const Tensor&) override {
    KernelsDecorator::do_fill(delta, 0);
  }
};

struct BackwardDropsQueriesGradient : Faulty {
  using Faulty::Faulty;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    AttentionGradients partly = gradients;
    if (++calls_ == 2) partly.d_q = copy_of(memory_, gradients.d_q);
    Faulty::do_attention_backward(block, d_out, lse, delta, partly);
  }
  CpuMemory memory_;
  int calls_ = 0;
};

struct BackwardOverwrites : Faulty {
  using Faulty::Faulty;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    KernelsDecorator::do_fill(gradients.d_q, 0);
    Faulty::do_attention_backward(block, d_out, lse, delta, gradients);
  }
};

// Changes the block before both passes see it.
template <class Change>
struct BlockChanged : Faulty {
  using Faulty::Faulty;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    MaskTerms mask = block.mask;
    AttentionBlock changed{block.q,        block.k, block.v,    block.q_tokens,
                           block.k_tokens, mask,    block.scale};
    Change{}(changed, mask);
    Faulty::do_attention(changed, result);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    MaskTerms mask = block.mask;
    AttentionBlock changed{block.q,        block.k, block.v,    block.q_tokens,
                           block.k_tokens, mask,    block.scale};
    Change{}(changed, mask);
    Faulty::do_attention_backward(changed, d_out, lse, delta, gradients);
  }
};

Tokens shifted(const Tokens& tokens, std::int64_t by) {
  std::vector<Run> runs = tokens.runs();
  for (Run& run : runs) run.first += by;
  return Tokens(std::move(runs));
}

Tokens local_positions(const Tokens& tokens) { return Tokens({{0, 1, tokens.count()}}); }

// Without segments: their table is indexed by positions, which these faults move out of it.
struct QueriesOneEarly {
  void operator()(AttentionBlock& block, MaskTerms& mask) const {
    if (!mask.segments.defined()) block.q_tokens = shifted(block.q_tokens, -1);
  }
};
struct QueriesOneLate {
  void operator()(AttentionBlock& block, MaskTerms& mask) const {
    if (!mask.segments.defined()) block.q_tokens = shifted(block.q_tokens, 1);
  }
};
struct KeysAtLocalPositions {
  void operator()(AttentionBlock& block, MaskTerms&) const {
    block.k_tokens = local_positions(block.k_tokens);
  }
};
struct AllAtLocalPositions {
  void operator()(AttentionBlock& block, MaskTerms&) const {
    block.q_tokens = local_positions(block.q_tokens);
    block.k_tokens = local_positions(block.k_tokens);
  }
};
struct NoSegments {
  void operator()(AttentionBlock&, MaskTerms& mask) const { mask.segments = {}; }
};
struct NoSegmentsAcrossRanks {
  void operator()(AttentionBlock& block, MaskTerms& mask) const {
    if (!(block.q_tokens == block.k_tokens)) mask.segments = {};
  }
};
struct NoWindow {
  void operator()(AttentionBlock&, MaskTerms& mask) const { mask.band.window = 0; }
};
struct WindowOneWider {
  void operator()(AttentionBlock&, MaskTerms& mask) const {
    mask.band.window += mask.band.window > 0;
  }
};
struct NotCausal {
  void operator()(AttentionBlock&, MaskTerms& mask) const { mask.band.causal = false; }
};
struct ScaleForgotten {
  void operator()(AttentionBlock& block, MaskTerms&) const { block.scale = 1; }
};

struct HeadsInterleaved : Faulty {
  using Faulty::Faulty;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    const std::int64_t H = block.q.extent(2), G = block.k.extent(2);
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t g = h % G;  // right: h / (H / G)
      Faulty::do_attention(
          {block.q.slice(2, h, h + 1), block.k.slice(2, g, g + 1), block.v.slice(2, g, g + 1),
           block.q_tokens, block.k_tokens, block.mask, block.scale},
          {result.out.slice(2, h, h + 1), result.lse.slice(2, h, h + 1)});
    }
  }
};

struct StepSkipped : Faulty {
  using Faulty::Faulty;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    if (++calls_ != 2) return Faulty::do_attention(block, result);
    KernelsDecorator::do_fill(result.out, 0);
    KernelsDecorator::do_fill(result.lse, -kInfinity);
  }
  int calls_ = 0;
};

struct EmptyRowsFinite : Faulty {
  using Faulty::Faulty;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    Faulty::do_attention(block, result);
    std::vector<double> lse = values_of(result.lse);
    for (double& value : lse) value = std::isinf(value) ? 0 : value;
    assign(result.lse, lse);
  }
};

struct AddTwice : Faulty {
  using Faulty::Faulty;
  void do_add(const Tensor& target, const Tensor& source) override {
    Faulty::do_add(target, source);
    Faulty::do_add(target, source);
  }
};

struct ScoresUnmasked : Faulty {
  using Faulty::Faulty;
  void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                         const Tokens& k_tokens, const MaskTerms*) override {
    Faulty::do_scores_softmax(scores, lse, q_tokens, k_tokens, nullptr);
  }
};

struct SoftmaxBackwardHalved : Faulty {  // stands for the division by the number of ranks
  using Faulty::Faulty;
  void do_scores_softmax_backward(const Tensor& d_p, const Tensor& p, double scale) override {
    Faulty::do_scores_softmax_backward(d_p, p, scale / 2);
  }
};

struct SoftmaxBackwardWithoutSum : Faulty {
  using Faulty::Faulty;
  void do_scores_softmax_backward(const Tensor& d_p, const Tensor& p, double scale) override {
    const std::vector<double> weights = values_of(p);
    std::vector<double> gradient = values_of(d_p);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      gradient[i] = weights[i] == 0 ? 0 : scale * weights[i] * gradient[i];
    }
    assign(d_p, gradient);
  }
};

struct ProjectionGradientDropped : Faulty {
  using Faulty::Faulty;
  void do_project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                           const Tensor& projection, const Tensor& x) override {
    const Tensor scratch = copy_of(memory_, d_projection);
    Faulty::do_project_backward(d_x, scratch, d_projected, projection, x);
  }
  CpuMemory memory_;
};

template <class Fault>
std::unique_ptr<Kernels> make(Kernels& inner) {
  return std::make_unique<Fault>(inner);
}

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
       "zhuzilin #22, #42",
       {"ring/contiguous", "ring/zigzag"},
       make<CarryInStorage>,
       {}},
      {"gradient_carry_in_storage",
       "gradients rounded to storage after every hop",
       "zhuzilin #67",
       {"ring/zigzag", "token_ring/zigzag"},
       make<GradientCarryInStorage>,
       {}},
      {"partial_in_storage",
       "block outputs rounded to storage before the merge",
       "flash-attention #1088",
       {"ring/zigzag", "ring/striped"},
       make<PartialInStorage>,
       {}},
      {"lse_in_storage",
       "log-sum-exp of a block rounded to storage",
       classic,
       kMerging,
       make<LseInStorage>,
       {}},
      {"merge_without_maximum",
       "merge weights exp(lse) not shifted by the maximum",
       "zhuzilin PR 30",
       kMerging,
       make<MergeWithoutMaximum>,
       {}},
      {"merge_overflows",
       "log(1 + exp(b - a)) overflows",
       "zhuzilin PR 34, ThunderKittens",
       kMerging,
       make<MergeThatOverflows>,
       {}},
      {"merge_keeps_lse",
       "merge updates out but not lse",
       classic,
       kMerging,
       make<MergeKeepsLse>,
       {}},
      {"merge_twice", "one partial result merged twice", classic, kMerging, make<MergeTwice>, {}},
      {"merge_weights_swapped",
       "weights of a merge exchanged",
       classic,
       kMerging,
       make<MergeWeightsSwapped>,
       {}},
      {"backward_stale_keys",
       "backward uses the keys of hop 0 at every hop",
       "diffusers #14265",
       {"ring/contiguous", "ring/zigzag", "ring_two_channel/zigzag"},
       make<BackwardOfFirstKeys>,
       {}},
      {"backward_block_lse",
       "backward uses log-sum-exp per block",
       "tt-metal #53205",
       kBlocks,
       make<BackwardOfBlockRows<false>>,
       {}},
      {"backward_block_out",
       "backward uses out (delta) per block",
       "tt-metal #53205",
       kBlocks,
       make<BackwardOfBlockRows<true>>,
       {}},
      {"backward_no_delta",
       "delta left out",
       classic,
       {"ring/zigzag", "allgather", "ulysses"},
       make<BackwardWithoutDelta>,
       {}},
      {"backward_drops_dq",
       "dQ of one step lost",
       classic,
       {"ring/contiguous", "ring/striped"},
       make<BackwardDropsQueriesGradient>,
       {}},
      {"backward_overwrites_dq",
       "dQ overwritten instead of added",
       classic,
       {"ring/zigzag", "ring/striped"},
       make<BackwardOverwrites>,
       {}},
      {"mask_one_strict",
       "causal mask hides the diagonal",
       classic,
       kBlocks,
       make<BlockChanged<QueriesOneEarly>>,
       {}},
      {"mask_one_loose",
       "causal mask shows one future token",
       classic,
       {"ring/zigzag", "allgather", "ulysses"},
       make<BlockChanged<QueriesOneLate>>,
       {}},
      {"keys_at_local_positions",
       "keys masked at positions of their shard (wrong rank offset)",
       "zhuzilin #67",
       {"ring/contiguous", "ring/zigzag", "token_ring/zigzag"},
       make<BlockChanged<KeysAtLocalPositions>>,
       {}},
      {"all_at_local_positions",
       "positions restart on every rank",
       "nanoVLM #204",
       {"ring/contiguous", "ring/striped", "allgather"},
       make<BlockChanged<AllAtLocalPositions>>,
       {}},
      {"segments_ignored",
       "packed documents see each other",
       "axolotl #3608",
       {"ring/contiguous", "allgather", "ulysses", "token_ring/zigzag"},
       make<BlockChanged<NoSegments>>,
       {}},
      {"segments_ignored_across_ranks",
       "documents separated within a rank only",
       "axolotl #3608",
       {"ring/contiguous", "ring/zigzag", "token_ring/contiguous"},
       make<BlockChanged<NoSegmentsAcrossRanks>>,
       {}},
      {"window_ignored",
       "sliding window silently full",
       "prime-rl #2828",
       {"ring/zigzag", "ulysses"},
       make<BlockChanged<NoWindow>>,
       {}},
      {"window_one_wider",
       "window off by one",
       classic,
       {"ring/striped", "allgather"},
       make<BlockChanged<WindowOneWider>>,
       {}},
      {"not_causal",
       "causal flag dropped for remote and local blocks",
       "TokenRing's non-causal code",
       {"ring/striped", "token_ring/zigzag", "allgather"},
       make<BlockChanged<NotCausal>>,
       {}},
      {"scale_forgotten",
       "softmax scale left out",
       classic,
       {"ring/zigzag", "ulysses"},
       make<BlockChanged<ScaleForgotten>>,
       {}},
      {"heads_interleaved",
       "query head h uses key head h mod G",
       classic,
       {"ring/zigzag", "allgather"},
       make<HeadsInterleaved>,
       {}},
      {"step_skipped",
       "one step's block never computed",
       classic,
       {"ring/contiguous", "ring/zigzag", "token_ring/zigzag"},
       make<StepSkipped>,
       {}},
      {"empty_rows_finite",
       "rows that see nothing get log-sum-exp 0",
       "zhuzilin PR 30",
       {"ring/zigzag", "ring/striped"},
       make<EmptyRowsFinite>,
       {}},
      {"add_twice",
       "received gradient added twice",
       classic,
       {"ring/contiguous", "token_ring/contiguous"},
       make<AddTwice>,
       {}},
      {"scores_unmasked",
       "RSA softmax without the mask",
       classic,
       {"rsa", "rsa_skip"},
       make<ScoresUnmasked>,
       {}},
      {"rsa_gradient_divided",
       "RSA gradients divided by the ranks",
       "ColossalAI, since 2021",
       {"rsa", "rsa_linformer"},
       make<SoftmaxBackwardHalved>,
       {}},
      {"softmax_backward_no_sum",
       "softmax backward without the row sum",
       classic,
       {"rsa", "rsa_linformer"},
       make<SoftmaxBackwardWithoutSum>,
       {}},
      {"projection_gradient_lost",
       "gradient of the Linformer projections lost",
       classic,
       {"rsa_linformer"},
       make<ProjectionGradientDropped>,
       {}},
  };
}

}  // namespace sp
