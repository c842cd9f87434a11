// Faults in the states of linear attention that pass between ranks, and in how they are summed.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include "harness/mutants/faulty_kernels.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

using Spans = std::vector<StateSpan>;

// Changes the list of states that are summed: change(spans) in one pass, or in both.
struct SpansChanged : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override {
    Spans changed(spans.begin(), spans.end());
    change(changed, terms);
    FaultyStates::do_linear_accumulate(into, changed, terms);
  }
  virtual void change(Spans& spans, const LinearTerms& terms) = 0;
};

struct PrefixOneShort : SpansChanged {
  using SpansChanged::SpansChanged;
  void change(Spans& spans, const LinearTerms&) override {
    if (!backward_ && !spans.empty()) spans.pop_back();
  }
};

struct SuffixInOrderOfPrefix : SpansChanged {
  using SpansChanged::SpansChanged;
  void change(Spans& spans, const LinearTerms&) override {
    if (backward_) std::reverse(spans.begin(), spans.end());
  }
};

// Without a mask: what lies behind a chunk, or before it, instead of everything.
struct UnmaskedGradientOfLaterChunks : SpansChanged {
  using SpansChanged::SpansChanged;
  void change(Spans& spans, const LinearTerms& terms) override {
    if (terms.causal || !backward_) return;
    std::erase_if(spans, [&](const StateSpan& span) { return span.tokens.first <= chunk_.first; });
  }
};
struct UnmaskedSumOfEarlierChunks : SpansChanged {
  using SpansChanged::SpansChanged;
  void change(Spans& spans, const LinearTerms& terms) override {
    if (terms.causal || backward_) return;
    std::erase_if(spans, [&](const StateSpan& span) { return span.tokens.first >= chunk_.first; });
  }
};

struct ChunkDecayForgotten : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override {
    LinearTerms changed = terms;
    if (terms.log_decay.defined()) changed.log_decay = zeros_like(memory_, terms.log_decay);
    Spans undecayed(spans.begin(), spans.end());
    for (StateSpan& span : undecayed) {
      if (span.log_decay.defined()) span.log_decay = zeros_like(memory_, span.log_decay);
    }
    FaultyStates::do_linear_accumulate(into, undecayed, changed);
  }
};

struct PrefixInclusive : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_inter(const LinearBlock& block, const Tensor& before,
                       const Tensor& sums) override {
    const bool gated = decay_of(block.terms.module) == Decay::kPerChannel;
    const std::int64_t W = before.extent(3);
    const Tensor own = memory_.allocate(
        before.dtype(), {before.extent(0), before.extent(1), before.extent(2), W + (gated ? 1 : 0)},
        "state");
    KernelsDecorator::do_linear_state(block, own);
    const Tensor inclusive = copy_of(memory_, before);
    const StateSpan span{own.slice(3, 0, W), block.tokens,
                         gated ? own.slice(3, W, W + 1) : Tensor()};
    KernelsDecorator::do_linear_accumulate(inclusive, {&span, 1}, block.terms);
    FaultyStates::do_linear_inter(block, inclusive, sums);
  }
};

// Changes a chunk's own state before anybody uses it: the one that is sent on its own, and the one
// that leaves with those before it.
struct OwnStateChanged : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    FaultyStates::do_linear_state(block, state);
    change(block, state);
  }
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    FaultyStates::do_linear_forward(block, before, sums, after);
    if (after.defined()) change(block, after);
  }
  virtual void change(const LinearBlock& block, const Tensor& state) = 0;
};

struct StateInStorage : OwnStateChanged {
  using OwnStateChanged::OwnStateChanged;
  void change(const LinearBlock& block, const Tensor& state) override {
    round_to(state, block.k.dtype());
  }
};

// The released code's state is the textbook's, decayed by one token more; its reader undoes that.
struct StateDecayedOnceMore : OwnStateChanged {
  using OwnStateChanged::OwnStateChanged;
  void change(const LinearBlock& block, const Tensor& state) override {
    const std::vector<double> decays = decays_per_head(block.terms);
    for (std::size_t h = 0; h < decays.size(); ++h) {
      const auto head = static_cast<std::int64_t>(h);
      multiply(state.slice(2, head, head + 1), decays[h]);
    }
  }
};

struct NormaliserNotGathered : OwnStateChanged {
  using OwnStateChanged::OwnStateChanged;
  void change(const LinearBlock& block, const Tensor& state) override {
    const std::int64_t W = state.extent(3);
    if (is_normalised(block.terms.module)) KernelsDecorator::do_fill(state.slice(3, W - 1, W), 0);
  }
};

struct GatesNotSent : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    FaultyStates::do_linear_state(block, state);
    const std::int64_t E = block.v.extent(3);
    if (decay_of(block.terms.module) == Decay::kPerChannel && state.extent(3) > E)
      KernelsDecorator::do_fill(state.slice(3, E, E + 1), 0);
  }
};

struct FirstStateStale : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_fill(const Tensor& target, double value) override {
    const std::string_view name = target.name();
    FaultyStates::do_fill(target, name == "before" || name == "d_after" ? 1 : value);
  }
};

// One buffer for the states of all layers: backward finds that of the last.
struct SavedStateShared : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_inter(const LinearBlock& block, const Tensor& before,
                       const Tensor& sums) override {
    FaultyStates::do_linear_inter(block, before, sums);
    if (shared_.defined()) assign(shared_, values_of(before));
    shared_ = before;
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    shared_ = {};
    FaultyStates::do_linear_d_state(block, d_sums, d_state);
  }
  Tensor shared_;
};

const std::vector<const char*> kSending{"lasp2", "lasp1", "zeco"};
const std::vector<const char*> kSumming{"lasp2", "lasp1", "zeco", "ring_linear_right"};

std::vector<const char*> and_also(std::vector<const char*> algorithms, const char* one) {
  algorithms.push_back(one);
  return algorithms;
}

}  // namespace

std::vector<Mutant> linear_state_mutants() {
  const char* classic = "classic";
  return {
      {"prefix_inclusive",
       "a chunk's own state counted among the earlier ones",
       classic,
       and_also(kSumming, "lasp2h"),
       make_faulty<PrefixInclusive>,
       {}},
      {"prefix_one_short",
       "state of the previous chunk left out",
       classic,
       {"lasp2", "lasp2h"},
       make_faulty<PrefixOneShort>,
       {}},
      {"suffix_in_order_of_prefix",
       "backward decays the later chunks in the order of forward",
       classic,
       {"lasp2"},
       make_faulty<SuffixInOrderOfPrefix>,
       {}},
      {"unmasked_gradient_of_later_chunks",
       "backward without a mask sums the chunks t+1..T",
       "arXiv:2502.07563, algorithm 3, line 5",
       {"lasp2"},
       make_faulty<UnmaskedGradientOfLaterChunks>,
       {}},
      {"unmasked_sum_of_earlier_chunks",
       "output without a mask leaves out the own and later chunks",
       "arXiv:2502.07563, algorithm 5, and the released operator",
       {"lasp2"},
       make_faulty<UnmaskedSumOfEarlierChunks>,
       {}},
      {"chunk_decay_forgotten",
       "states summed without the decay of the chunks between",
       "arXiv:2502.07563, no decay in any algorithm",
       and_also(kSumming, "lasp2h"),
       make_faulty<ChunkDecayForgotten>,
       {}},
      {"gates_not_sent",
       "the chunk's own gates missing in its message",
       "arXiv:2502.07563, where only states are gathered",
       kSending,
       make_faulty<GatesNotSent>,
       {}},
      {"state_decayed_once_more",
       "states in the convention of one rank read in that of another",
       "OpenNLPLab/LASP against its paper",
       and_also(kSumming, "lasp1_released"),
       make_faulty<StateDecayedOnceMore>,
       {}},
      {"normaliser_not_gathered",
       "sum of weights restarts on every rank",
       "flash-linear-attention, chunked reference: every 64 tokens",
       and_also(kSending, "lasp1_released"),
       make_faulty<NormaliserNotGathered>,
       {}},
      {"state_in_storage",
       "states rounded to storage",
       "OpenNLPLab/LASP, lasp_naive",
       and_also(kSumming, "lasp1_released"),
       make_faulty<StateInStorage>,
       {}},
      {"first_state_stale",
       "the chain starts from what its buffer held",
       classic,
       {"lasp2", "lasp1", "lasp1_released", "zeco"},
       make_faulty<FirstStateStale>,
       {}},
      {"saved_state_shared",
       "layers save their states in one buffer",
       "OpenNLPLab/LASP, lasp_cache",
       {"lasp2h"},
       make_faulty<SavedStateShared>,
       {}},
  };
}

}  // namespace sp
