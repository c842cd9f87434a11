// Faults in the linear attention of one chunk: documents, decays, masks, normalisers.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>
#include <vector>

#include "harness/mutants/faulty_kernels.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

// Where a changed term reaches.
enum Place : unsigned {
  kInside = 1,      // products inside the chunk, forward
  kInter = 2,       // the state before the chunk, forward
  kState = 4,       // the chunk's own state
  kAccumulate = 8,  // sums of states, both passes
  kBackward = 16,   // everything of one chunk
  kLeft = 32,       // the left product, both passes
  kEverywhere = 63
};

// Change{}(terms, memory) in the places of kPlaces.
template <class Change, unsigned kPlaces>
struct TermsChanged : FaultyStates {
  using FaultyStates::FaultyStates;

  LinearTerms terms_in(unsigned place, const LinearTerms& terms) {
    LinearTerms changed = terms;
    if ((kPlaces & place) != 0) Change{}(changed, storage_, memory_);
    return changed;
  }
  static LinearBlock with(const LinearBlock& block, const LinearTerms& terms) {
    return {block.q, block.k, block.v, block.tokens, terms};
  }

  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    storage_ = block.k.dtype();
    const LinearTerms terms = terms_in(kState, block.terms);
    FaultyStates::do_linear_state(with(block, terms), state);
  }
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override {
    FaultyStates::do_linear_accumulate(into, spans, terms_in(kAccumulate, terms));
  }
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    storage_ = block.q.dtype();
    const LinearTerms terms = terms_in(kInside, block.terms);
    FaultyStates::do_linear_forward(with(block, terms), before, sums, after);
  }
  void do_linear_inter(const LinearBlock& block, const Tensor& before,
                       const Tensor& sums) override {
    const LinearTerms terms = terms_in(kInter, block.terms);
    FaultyStates::do_linear_inter(with(block, terms), before, sums);
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    const LinearTerms terms = terms_in(kBackward, block.terms);
    FaultyStates::do_linear_d_state(with(block, terms), d_sums, d_state);
  }
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    const LinearTerms terms = terms_in(kBackward, block.terms);
    FaultyStates::do_linear_d_q(with(block, terms), before, d_sums, gradients, after);
  }
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override {
    const LinearTerms terms = terms_in(kBackward, block.terms);
    FaultyStates::do_linear_d_kv(with(block, terms), d_after, d_sums, gradients, d_before);
  }
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    const LinearTerms terms = terms_in(kBackward, block.terms);
    FaultyStates::do_linear_d_kv_inter(with(block, terms), d_after, gradients);
  }
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override {
    storage_ = block.q.dtype();
    FaultyStates::do_linear_block(block, terms_in(kLeft, terms), sums);
  }
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    FaultyStates::do_linear_block_backward(block, terms_in(kLeft, terms), d_out, gradients,
                                           d_log_decay);
  }
};

struct NoSegments {
  void operator()(LinearTerms& terms, DType, Memory&) const { terms.segments = {}; }
};
struct ScaleTwice {
  void operator()(LinearTerms& terms, DType, Memory&) const { terms.scale *= terms.scale; }
};
struct DecaysInStorage {
  void operator()(LinearTerms& terms, DType storage, Memory& memory) const {
    if (!terms.log_decay.defined()) return;
    terms.log_decay = copy_of(memory, terms.log_decay);
    round_to(terms.log_decay, storage);
  }
};

// Every token's own decay applies to its own key and value: powers are off by one in the chunk.
struct DecayInclusive : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    FaultyStates::do_linear_forward(block, before, sums, after);
    const std::vector<double> decays = decays_per_head(block.terms);
    for (std::size_t h = 0; h < decays.size(); ++h) {
      const auto head = static_cast<std::int64_t>(h);
      multiply(sums.slice(2, head, head + 1), decays[h]);
    }
  }
};

// Tokens of a diagonal tile see the later ones in it.
struct TileWithoutMask : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    FaultyStates::do_linear_forward(block, before, sums, after);
    if (is_normalised(block.terms.module) || block.terms.module == Module::kGla) return;
    for (std::int64_t begin = 0; begin < block.tokens.count; begin += kLinearChunk) {
      const std::int64_t end = std::min(begin + kLinearChunk, block.tokens.count);
      const Tensor tile = sums.rows(begin, end);
      for (const bool causal : {false, true}) {
        const Tensor product = zeros_like(memory_, tile);
        add_tile(block, begin, end, causal, product);
        add_scaled(tile, product, causal ? -1 : 1);
      }
    }
  }
  void add_tile(const LinearBlock& block, std::int64_t begin, std::int64_t end, bool causal,
                const Tensor& product) {
    const Tokens tokens({{block.tokens.position(begin), 1, end - begin}});
    const MaskTerms mask{{causal, 0}, block.terms.segments};
    LinearTerms terms = block.terms;
    terms.causal = causal;
    KernelsDecorator::do_linear_block({block.q.rows(begin, end), block.k.rows(begin, end),
                                       block.v.rows(begin, end), tokens, tokens, mask, terms.scale},
                                      terms, product);
  }
};

struct HeadsInterleaved : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    if (before.defined() || after.defined())
      return FaultyStates::do_linear_forward(block, before, sums, after);
    const std::int64_t H = block.q.extent(2), G = block.k.extent(2);
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t g = h % G;  // right: h / (H / G)
      LinearTerms terms = block.terms;
      if (terms.log_decay.defined()) terms.log_decay = terms.log_decay.slice(2, h, h + 1);
      FaultyStates::do_linear_forward({block.q.slice(2, h, h + 1), block.k.slice(2, g, g + 1),
                                       block.v.slice(2, g, g + 1), block.tokens, terms},
                                      {}, sums.slice(2, h, h + 1), {});
    }
  }
};

template <int kTimes>
struct EpsilonTimes : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) override {
    FaultyStates::do_linear_output(out, sums, kTimes * epsilon);
  }
};

struct HaloOneShort : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    const std::int64_t m = block.k_tokens.count();
    if (block.q_tokens == block.k_tokens || m == 0)
      return FaultyStates::do_attention(block, result);
    FaultyStates::do_attention({block.q, block.k.rows(1, m), block.v.rows(1, m), block.q_tokens,
                                block.k_tokens.slice(1, m), block.mask, block.scale},
                               result);
  }
};

const std::vector<const char*> kStates{"lasp2", "lasp1", "lasp1_released", "zeco",
                                       "ring_linear_right"};
const std::vector<const char*> kSumming{"lasp2", "lasp1", "zeco", "ring_linear_right"};
const std::vector<const char*> kNormalising{"lasp2", "lasp1", "lasp1_released", "zeco"};

}  // namespace

std::vector<Mutant> linear_mutants() {
  const char* classic = "classic";
  return {
      {"documents_ignored_in_prefix",
       "a document that begins in an earlier chunk does not reset the state",
       "axolotl #3608",
       kSumming,
       make_faulty<TermsChanged<NoSegments, kAccumulate>>,
       {}},
      {"documents_ignored_on_arrival",
       "all tokens of a chunk read the state before it",
       "axolotl #3608",
       kSumming,
       make_faulty<TermsChanged<NoSegments, kInter>>,
       {}},
      {"documents_ignored_in_state",
       "a chunk's own state holds documents that have ended",
       classic,
       kSumming,
       make_faulty<TermsChanged<NoSegments, kState>>,
       {}},
      {"documents_ignored_in_chunk",
       "documents separated between ranks only",
       classic,
       kStates,
       make_faulty<TermsChanged<NoSegments, kInside>>,
       {}},
      {"documents_ignored_backward",
       "documents separated in forward only",
       classic,
       kStates,
       make_faulty<TermsChanged<NoSegments, kBackward>>,
       {}},
      {"linear_scale_twice",
       "the state before the chunk scaled twice",
       "flash-linear-attention, chunked reference",
       kSumming,
       make_faulty<TermsChanged<ScaleTwice, kInter>>,
       {}},
      {"decays_in_storage",
       "decays cast to storage with the rest of the model",
       classic,
       {"lasp2", "lasp1_released", "zeco", "ring_linear", "megatron_sp_linear"},
       make_faulty<TermsChanged<DecaysInStorage, kEverywhere>>,
       {}},
      {"decay_inclusive",
       "a token's own decay applied to its own key and value",
       classic,
       kSumming,
       make_faulty<DecayInclusive>,
       {}},
      {"tile_without_mask",
       "tokens see the later ones in their tile",
       "arXiv:2502.07563, released operator",
       kStates,
       make_faulty<TileWithoutMask>,
       {}},
      {"linear_heads_interleaved",
       "query head h uses key head h mod G",
       classic,
       kSumming,
       make_faulty<HeadsInterleaved>,
       {}},
      {"epsilon_forgotten",
       "normaliser without its epsilon",
       classic,
       kNormalising,
       make_faulty<EpsilonTimes<0>>,
       {}},
      {"epsilon_twice",
       "epsilon added to the intra and to the inter part",
       classic,
       kNormalising,
       make_faulty<EpsilonTimes<2>>,
       {}},
      with_module(Module::kBased, {"halo_one_short",
                                   "first key of the window missing at the border of ranks",
                                   classic,
                                   {"lasp2"},
                                   make_faulty<HaloOneShort>,
                                   {}}),
  };
}

}  // namespace sp
