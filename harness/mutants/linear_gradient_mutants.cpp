// Faults in the gradients of linear attention.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "harness/mutants/faulty_kernels.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

// Positions counted in bf16: exact up to 256, then the distance to the chunk's end is rounded.
struct PositionsInBf16 : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    const std::vector<double> decays = decays_per_head(block.terms);
    if (decays.size() != static_cast<std::size_t>(block.k.extent(2)))
      return FaultyStates::do_linear_d_kv_inter(block, d_after, gradients);
    LinearGradients share = gradients;
    share.d_k = zeros_like(memory_, gradients.d_k);
    share.d_v = zeros_like(memory_, gradients.d_v);
    FaultyStates::do_linear_d_kv_inter(block, d_after, share);
    const std::int64_t n = block.tokens.count;
    for (std::int64_t i = 0; i < n; ++i) {
      const double rounded = widen(narrow<bf16>(static_cast<double>(i)));
      const double off = std::max(static_cast<double>(i) - rounded, static_cast<double>(i - n + 1));
      for (std::size_t h = 0; h < decays.size(); ++h) {
        const auto head = static_cast<std::int64_t>(h);
        const double factor = std::min(std::pow(decays[h], off), 1e6);
        for (const Tensor& tensor : {share.d_k, share.d_v})
          multiply(tensor.rows(i, i + 1).slice(2, head, head + 1), factor);
      }
    }
    FaultyStates::do_add(gradients.d_k, share.d_k);
    FaultyStates::do_add(gradients.d_v, share.d_v);
  }
};

struct WithoutLaterChunks : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_d_kv_inter(const LinearBlock&, const Tensor&, const LinearGradients&) override {}
};

struct QueriesGradientWithoutState : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    FaultyStates::do_linear_d_q(block, before.defined() ? zeros_like(memory_, before) : before,
                                d_sums, gradients, after);
  }
};

struct NormaliserGradientDropped : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                                 double epsilon) override {
    FaultyStates::do_linear_output_backward(d_sums, d_out, sums, epsilon);
    const std::int64_t W = d_sums.extent(3);
    KernelsDecorator::do_fill(d_sums.slice(3, W - 1, W), 0);
  }
};

// The gradients of the layer norm that arise from keys and states of other ranks.
struct NormGradientOfStateLost : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    LinearGradients partly = gradients;
    if (partly.d_gamma.defined()) {
      partly.d_gamma = copy_of(memory_, gradients.d_gamma);
      partly.d_beta = copy_of(memory_, gradients.d_beta);
    }
    FaultyStates::do_linear_d_kv_inter(block, d_after, partly);
  }
};

// As if the gradients of parameters were taken for equal on all ranks.
struct NormGradientOfFirstRank : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    FaultyStates::do_linear_d_q(block, before, d_sums, gradients, after);
    drop(block, gradients);
  }
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override {
    FaultyStates::do_linear_d_kv(block, d_after, d_sums, gradients, d_before);
    drop(block, gradients);
  }
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    FaultyStates::do_linear_d_kv_inter(block, d_after, gradients);
    drop(block, gradients);
  }
  void drop(const LinearBlock& block, const LinearGradients& gradients) {
    if (block.tokens.first > 0 && gradients.d_gamma.defined())
      KernelsDecorator::do_fill(gradients.d_gamma, 0);
  }
};

struct DecayGradientWithoutState : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms, const Tensor& after,
                         const Tensor&, const Tensor& d_log_decay) override {
    FaultyStates::do_linear_d_decay(block, decay_terms, after, {}, d_log_decay);
  }
};

struct DecayGradientOverwritten : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    if (d_log_decay.defined()) KernelsDecorator::do_fill(d_log_decay, 0);
    FaultyStates::do_linear_block_backward(block, terms, d_out, gradients, d_log_decay);
  }
};

struct HaloGradientLost : FaultyStates {
  using FaultyStates::FaultyStates;
  void do_add(const Tensor& target, const Tensor& source) override {
    const std::string_view name = target.name();
    if (name != "d_k" && name != "d_v") FaultyStates::do_add(target, source);
  }
};

const std::vector<const char*> kStates{"lasp2", "lasp1", "lasp1_released", "zeco",
                                       "ring_linear_right"};
const std::vector<const char*> kNormalising{"lasp2", "lasp1", "lasp1_released", "zeco"};

// Long chunks, one decay per head, and keys of their own for every head.
Mutant with_long_chunks(Mutant mutant) {
  Pins& pins = mutant.pins;
  pins.ranks = {2};
  pins.batch = 1;
  pins.tokens = 1100;
  pins.heads = pins.kv_heads = pins.head_size = 4;
  pins.module = Module::kLightning;
  pins.dtype = DType::kBF16;
  return mutant;
}

}  // namespace

std::vector<Mutant> linear_gradient_mutants() {
  const char* classic = "classic";
  return {
      with_long_chunks({"positions_in_bf16",
                        "distances to the end of the chunk rounded to bf16",
                        "OpenNLPLab/LASP, lasp_naive",
                        {"lasp2", "lasp1", "zeco"},
                        make_faulty<PositionsInBf16>,
                        {}}),
      {"keys_gradient_without_later_chunks",
       "dK, dV of the own chunk's queries only",
       classic,
       {"lasp2", "lasp1", "zeco", "ring_linear_right", "lasp2h"},
       make_faulty<WithoutLaterChunks>,
       {}},
      {"queries_gradient_without_state",
       "dQ without the saved state",
       "OpenNLPLab/LASP, agreement published of rank 0 alone",
       kStates,
       make_faulty<QueriesGradientWithoutState>,
       {}},
      {"normaliser_gradient_dropped",
       "gradient of the normaliser left out",
       classic,
       kNormalising,
       make_faulty<NormaliserGradientDropped>,
       {}},
      with_module(Module::kRebased, {"norm_gradient_of_state_lost",
                                     "d gamma, d beta without what later chunks add",
                                     classic,
                                     {"lasp2", "lasp1", "zeco"},
                                     make_faulty<NormGradientOfStateLost>,
                                     {}}),
      with_module(Module::kRebased, {"norm_gradient_of_first_rank",
                                     "d gamma of the first rank taken for the whole",
                                     classic,
                                     kNormalising,
                                     make_faulty<NormGradientOfFirstRank>,
                                     {}}),
      {"decay_gradient_without_state",
       "gradient of the decays without what later chunks add",
       classic,
       kStates,
       make_faulty<DecayGradientWithoutState>,
       {}},
      {"decay_gradient_overwritten",
       "gradient of the decay of the last block only",
       classic,
       {"ring_linear"},
       make_faulty<DecayGradientOverwritten>,
       {}},
      with_module(Module::kBased, {"halo_gradient_lost",
                                   "gradients of the halo never added at home",
                                   classic,
                                   {"lasp2"},
                                   make_faulty<HaloGradientLost>,
                                   {}}),
  };
}

}  // namespace sp
