// Bugs that shipped in other people's libraries, where the classic ones do not stand for them already (museum.hpp).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <utility>

#include "harness/mutants/faulty_communicator.hpp"
#include "harness/mutants/faulty_kernels.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

struct LseInBase2 : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    FaultyKernels::do_attention(block, result);
    multiply(result.lse, std::numbers::log2e);
  }
};

// Rows all of whose scores lie below the number that stands for "nothing".
struct FiniteSentinel : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    FaultyKernels::do_attention(block, result);
    std::vector<double> lse = values_of(result.lse);
    for (double& value : lse) value = std::fmax(value, -1e4);
    assign(result.lse, lse);
  }
};

// Keys beyond those of `kept` rows are not there, in both passes.
template <class Kept>
struct KeysCut : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  static AttentionBlock cut(const AttentionBlock& block, std::int64_t kept) {
    return {block.q,        block.k.rows(0, kept),         block.v.rows(0, kept),
            block.q_tokens, block.k_tokens.slice(0, kept), block.mask,
            block.scale};
  }
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    FaultyKernels::do_attention(cut(block, kept_(block.k.extent(0))), result);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    const std::int64_t kept = kept_(block.k.extent(0));
    FaultyKernels::do_attention_backward(
        cut(block, kept), d_out, lse, delta,
        {gradients.d_q, gradients.d_k.rows(0, kept), gradients.d_v.rows(0, kept)});
  }
  Kept kept_;
};
// Every hop counts as many keys as the first one, one's own.
struct AsManyAsFirst {
  std::int64_t operator()(std::int64_t keys) {
    if (first_ < 0) first_ = keys;
    return std::min(first_, keys);
  }
  std::int64_t first_ = -1;
};
struct Even {
  std::int64_t operator()(std::int64_t keys) const { return keys / 2 * 2; }
};

struct GradientsNotCleared : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  void do_fill(const Tensor& target, double value) override {
    const std::string_view name = target.name();
    if (name != "d_k" && name != "d_v") FaultyKernels::do_fill(target, value);
  }
};

// [m, B, G, D] laid out as if it were [G, B, m, D].
struct KeysTransposedBackward : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  Tensor transposed(const Tensor& x) {
    const std::int64_t m = x.extent(0), B = x.extent(1), G = x.extent(2), D = x.extent(3);
    const std::vector<double> right = values_of(x);
    std::vector<double> wrong;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t b = 0; b < B; ++b) {
        for (std::int64_t g = 0; g < G; ++g) {
          const std::int64_t at = (i * G + g) % m, head = (i * G + g) / m;
          for (std::int64_t c = 0; c < D; ++c)
            wrong.push_back(right[static_cast<std::size_t>(((at * B + b) * G + head) * D + c)]);
        }
      }
    }
    const Tensor copy = copy_of(memory_, x);
    assign(copy, wrong);
    return copy;
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    const AttentionBlock changed{block.q,        transposed(block.k), transposed(block.v),
                                 block.q_tokens, block.k_tokens,      block.mask,
                                 block.scale};
    FaultyKernels::do_attention_backward(changed, d_out, lse, delta, gradients);
  }
};

// A document that is interrupted goes on through what interrupts it, its padding.
struct PaddingInDocument : FaultyKernels {
  using FaultyKernels::FaultyKernels;
  MaskTerms filled(const MaskTerms& mask) {
    if (!mask.segments.defined()) return mask;
    const std::int64_t B = mask.segments.extent(0), N = mask.segments.extent(1);
    std::vector<double> ids = values_of(mask.segments);
    for (std::int64_t b = 0; b < B; ++b) {
      double* id = ids.data() + b * N;
      std::map<double, std::int64_t> last;
      for (std::int64_t n = 0; n < N; ++n) last[id[n]] = n;
      for (std::int64_t n = 0; n < N; ++n) {
        for (const std::int64_t end = last[id[n]]; n < end; ++n) id[n + 1] = id[n];
      }
    }
    const Tensor segments = copy_of(memory_, mask.segments);
    assign(segments, ids);
    return {mask.band, segments};
  }
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    const MaskTerms mask = filled(block.mask);
    FaultyKernels::do_attention(
        {block.q, block.k, block.v, block.q_tokens, block.k_tokens, mask, block.scale}, result);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    const MaskTerms mask = filled(block.mask);
    FaultyKernels::do_attention_backward(
        {block.q, block.k, block.v, block.q_tokens, block.k_tokens, mask, block.scale}, d_out, lse,
        delta, gradients);
  }
};

// What arrives as [n, B, h, D] is read as [n, h, B, D].
struct BatchAndHeadsExchanged : Fault {
  struct Exchanged final : Operation {
    Exchanged(std::unique_ptr<Operation> inner, std::vector<Message> receives)
        : inner_(std::move(inner)), receives_(std::move(receives)) {}
    void wait() override {
      inner_->wait();
      for (const Message& message : receives_) {
        const auto [n, B, h, D] = message.data.shape();
        const std::vector<double> right = values_of(message.data);
        std::vector<double> wrong;
        for (std::int64_t row = 0; row < n * B * h; ++row) {
          const std::int64_t i = row / (B * h), b = row / h % B, head = row % h;
          for (std::int64_t c = 0; c < D; ++c)
            wrong.push_back(right[static_cast<std::size_t>(((i * h + head) * B + b) * D + c)]);
        }
        assign(message.data, wrong);
      }
    }
    std::unique_ptr<Operation> inner_;
    std::vector<Message> receives_;
  };
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    if (request.pattern != Pattern::kAllToAll) return forward(std::move(request));
    std::vector<Message> receives = request.receives;
    return std::make_unique<Exchanged>(forward(std::move(request)), std::move(receives));
  }
};

// Every head takes the decay of the one before it, in backward only.
struct DecaysOfOtherHeadsBackward : FaultyStates {
  using FaultyStates::FaultyStates;
  LinearTerms shifted(const LinearTerms& terms) {
    LinearTerms changed = terms;
    if (decay_of(terms.module) != Decay::kPerHead) return changed;
    std::vector<double> decays = values_of(terms.log_decay);
    std::rotate(decays.begin(), decays.end() - 1, decays.end());
    changed.log_decay = copy_of(memory_, terms.log_decay);
    assign(changed.log_decay, decays);
    return changed;
  }
  static LinearBlock with(const LinearBlock& block, const LinearTerms& terms) {
    return {block.q, block.k, block.v, block.tokens, terms};
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    const LinearTerms terms = shifted(block.terms);
    FaultyStates::do_linear_d_state(with(block, terms), d_sums, d_state);
  }
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    const LinearTerms terms = shifted(block.terms);
    FaultyStates::do_linear_d_q(with(block, terms), before, d_sums, gradients, after);
  }
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override {
    const LinearTerms terms = shifted(block.terms);
    FaultyStates::do_linear_d_kv(with(block, terms), d_after, d_sums, gradients, d_before);
  }
};

// Products of keys with exp(-sum) and of queries with exp(sum), in f32.
struct DecayOverflows : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    FaultyStates::do_linear_forward(block, before, sums, after);
    if (decay_of(block.terms.module) != Decay::kPerChannel) return;
    const Tensor& gates = block.terms.log_decay;  // [n, B, H, D]
    const std::vector<double> logs = values_of(gates);
    std::vector<double> factors(static_cast<std::size_t>(gates.elements()), 1.0);
    const std::int64_t row = gates.extent(1) * gates.extent(2) * gates.extent(3);
    std::vector<double> sum(static_cast<std::size_t>(row));
    for (std::size_t i = 0; i < factors.size(); ++i) {
      double& so_far = sum[i % static_cast<std::size_t>(row)];
      so_far += logs[i];
      factors[i] = std::exp(static_cast<float>(-so_far)) * std::exp(static_cast<float>(so_far));
    }
    std::vector<double> values = values_of(sums);
    const auto D = static_cast<std::size_t>(gates.extent(3)),
               W = static_cast<std::size_t>(sums.extent(3));
    for (std::size_t i = 0; i < values.size(); ++i) {
      for (std::size_t c = 0; c < D; ++c)
        if (!std::isfinite(factors[i / W * D + c])) values[i] = factors[i / W * D + c];
    }
    assign(sums, values);
  }
};

struct StateRestarts : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_forward(const LinearBlock& block, const Tensor&, const Tensor& sums,
                         const Tensor& after) override {
    FaultyStates::do_linear_forward(block, {}, sums, after);
  }
  void do_linear_inter(const LinearBlock&, const Tensor&, const Tensor&) override {}
};

Mutant with_batch(std::int64_t batch, Mutant mutant) {
  mutant.pins.batch = batch;
  return mutant;
}

}  // namespace

std::vector<Mutant> field_mutants() {
  return {
      {"lse_in_base_2",
       "log-sum-exp of blocks in base 2, merged as natural",
       "sglang #40903, vllm #52796",
       {"ring/zigzag", "token_ring/zigzag", "dist_flash"},
       make_faulty<LseInBase2>,
       {}},
      {"finite_sentinel",
       "-1e4 for minus infinity: rows whose scores all lie below it",
       "flashinfer #4267",
       {"ring/contiguous", "ring/zigzag"},
       make_faulty<FiniteSentinel>,
       {}},
      {"keys_of_shortest_shard",
       "every hop's keys counted as the first one's",
       "TransformerEngine #3331",
       {"ring/contiguous", "ring/zigzag"},
       make_faulty<KeysCut<AsManyAsFirst>>,
       {}},
      {"odd_key_dropped",
       "the last of an odd number of keys dropped",
       "TransformerEngine #1930",
       {"ring/contiguous", "allgather"},
       make_faulty<KeysCut<Even>>,
       {}},
      {"gradients_not_cleared",
       "dK, dV of a block start from what the memory held",
       "TransformerEngine #2186",
       {"ring/zigzag", "allgather"},
       make_faulty<GradientsNotCleared>,
       {}},
      {"keys_transposed_backward",
       "K, V transposed once more in backward",
       "Automodel PR 3157",
       {"ring/zigzag", "ulysses"},
       make_faulty<KeysTransposedBackward>,
       {}},
      {"padding_in_document",
       "padding inside a document taken for the document",
       "Automodel #3640",
       {"ring/zigzag", "allgather"},
       make_faulty<PaddingInDocument>,
       {}},
      with_batch(2, {"batch_and_heads_exchanged",
                     "batch and heads exchanged after the all-to-all",
                     "DeepSpeed #5808",
                     {"ulysses", "usp/zigzag"},
                     {},
                     inject<BatchAndHeadsExchanged>}),
      with_module(Module::kRetention, {"decays_of_other_heads",
                                       "decay per head read without its head offset, backward",
                                       "fla #1115",
                                       {"lasp2", "lasp1"},
                                       make_faulty<DecaysOfOtherHeadsBackward>,
                                       {}}),
      with_module(Module::kGla, {"decay_overflows",
                                 "decays as exp(-sum) times exp(sum)",
                                 "executorch #21417, fla #77",
                                 {"lasp2", "lasp1"},
                                 make_faulty<DecayOverflows>,
                                 {}}),
      {"state_restarts",
       "every rank starts from no state",
       "SkyRL #2056",
       {"lasp2", "lasp1"},
       make_faulty<StateRestarts>,
       {}},
  };
}

}  // namespace sp
