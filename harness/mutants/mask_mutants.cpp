// Faults in what the kernels are told: positions, mask terms, scale, heads.
// SPDX-License-Identifier: Apache-2.0
#include "harness/mutants/faulty_kernels.hpp"
#include "harness/mutants/mutants.hpp"

namespace sp {
namespace {

// Changes the block before both passes see it.
template <class Change>
struct BlockChanged : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    MaskTerms mask = block.mask;
    AttentionBlock changed{block.q,        block.k, block.v,    block.q_tokens,
                           block.k_tokens, mask,    block.scale};
    Change{}(changed, mask);
    FaultyKernels::do_attention(changed, result);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    MaskTerms mask = block.mask;
    AttentionBlock changed{block.q,        block.k, block.v,    block.q_tokens,
                           block.k_tokens, mask,    block.scale};
    Change{}(changed, mask);
    FaultyKernels::do_attention_backward(changed, d_out, lse, delta, gradients);
  }
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override {
    MaskTerms mask = block.mask;
    AttentionBlock changed{block.q,        block.k, block.v,    block.q_tokens,
                           block.k_tokens, mask,    block.scale};
    Change{}(changed, mask);
    FaultyKernels::do_linear_block(changed, with(mask, terms), sums);
  }
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    MaskTerms mask = block.mask;
    AttentionBlock changed{block.q,        block.k, block.v,    block.q_tokens,
                           block.k_tokens, mask,    block.scale};
    Change{}(changed, mask);
    FaultyKernels::do_linear_block_backward(changed, with(mask, terms), d_out, gradients,
                                            d_log_decay);
  }
  static LinearTerms with(const MaskTerms& mask, LinearTerms terms) {
    terms.segments = mask.segments;
    terms.causal = mask.band.causal;
    return terms;
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

struct HeadsInterleaved : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    const std::int64_t H = block.q.extent(2), G = block.k.extent(2);
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t g = h % G;  // right: h / (H / G)
      FaultyKernels::do_attention(
          {block.q.slice(2, h, h + 1), block.k.slice(2, g, g + 1), block.v.slice(2, g, g + 1),
           block.q_tokens, block.k_tokens, block.mask, block.scale},
          {result.out.slice(2, h, h + 1), result.lse.slice(2, h, h + 1)});
    }
  }
};

const std::vector<const char*> kBlocks{"ring/contiguous", "ring/striped", "ring/zigzag",
                                       "token_ring/contiguous", "token_ring_hybrid"};

}  // namespace

std::vector<Mutant> mask_mutants() {
  const char* classic = "classic";
  return {
      {"mask_one_strict",
       "causal mask hides the diagonal",
       classic,
       kBlocks,
       make_faulty<BlockChanged<QueriesOneEarly>>,
       {}},
      {"mask_one_loose",
       "causal mask shows one future token",
       classic,
       {"ring/zigzag", "allgather", "ulysses", "ring_linear", "megatron_sp_linear"},
       make_faulty<BlockChanged<QueriesOneLate>>,
       {}},
      {"keys_at_local_positions",
       "keys masked at positions of their shard (wrong rank offset)",
       "ring-flash-attention #67",
       {"ring/contiguous", "ring/zigzag", "token_ring/zigzag", "ring_linear"},
       make_faulty<BlockChanged<KeysAtLocalPositions>>,
       {}},
      {"all_at_local_positions",
       "positions restart on every rank",
       "nanoVLM #204",
       {"ring/contiguous", "ring/striped", "allgather", "ring_linear"},
       make_faulty<BlockChanged<AllAtLocalPositions>>,
       {}},
      {"segments_ignored",
       "packed documents see each other",
       "axolotl #3608",
       {"ring/contiguous", "allgather", "ulysses", "token_ring/zigzag", "ring_linear",
        "megatron_sp_linear"},
       make_faulty<BlockChanged<NoSegments>>,
       {}},
      {"segments_ignored_across_ranks",
       "documents separated within a rank only",
       "axolotl #3608",
       {"ring/contiguous", "ring/zigzag", "token_ring/contiguous", "ring_linear"},
       make_faulty<BlockChanged<NoSegmentsAcrossRanks>>,
       {}},
      {"window_ignored",
       "sliding window silently full",
       "prime-rl #2828, accelerate #4177, axlearn #1009",
       {"ring/zigzag", "ulysses"},
       make_faulty<BlockChanged<NoWindow>>,
       {}},
      {"window_one_wider",
       "window off by one",
       "mlx #3552",
       {"ring/striped", "allgather"},
       make_faulty<BlockChanged<WindowOneWider>>,
       {}},
      {"not_causal",
       "causal flag dropped for remote and local blocks",
       "TokenRing's non-causal code",
       {"ring/striped", "token_ring/zigzag", "allgather", "ring_linear", "megatron_sp_linear"},
       make_faulty<BlockChanged<NotCausal>>,
       {}},
      {"scale_forgotten",
       "softmax scale left out",
       classic,
       {"ring/zigzag", "ulysses", "ring_linear", "megatron_sp_linear"},
       make_faulty<BlockChanged<ScaleForgotten>>,
       {}},
      {"heads_interleaved",
       "query head h uses key head h mod G",
       classic,
       {"ring/zigzag", "allgather"},
       make_faulty<HeadsInterleaved>,
       {}},
  };
}

}  // namespace sp
