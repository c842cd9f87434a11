// A sequence cut into chunks whose states pass from one to the next, in both ways that algorithms
// use, against the recurrence over the whole sequence.
// SPDX-License-Identifier: Apache-2.0
#include "kernels_linear_cases.hpp"

namespace sp::test {
namespace {

std::vector<LinearCase> split_cases() {
  std::vector<LinearCase> cases;
  for (const Module module : kModules) {
    for (const std::int64_t document : {0, 25, 100}) {
      cases.push_back({.name = fmt::format("{}_documents{}", name_of(module), document),
                       .module = module,
                       .n = 130,
                       .B = 2,
                       .H = 4,
                       .G = 2,
                       .D = 4,
                       .E = 5,
                       .chunk = 16,
                       .document = document,
                       .before = false});
    }
  }
  return cases;
}

// Uneven chunks; one is empty, one has a single token, one border is that of documents of 25.
constexpr std::int64_t kBorders[] = {0, 17, 18, 18, 75, 130};
constexpr std::size_t kChunks = std::size(kBorders) - 1;

class LinearSplit : public LinearTest {
 protected:
  void SetUp() override {
    const LinearCase& c = GetParam();
    whole_ = draw(c);
    expected_ = plain_linear(c, whole_.plain);
    sums_ = fresh(c, expected_.sums.value);
    gradients_ = {filled(c, whole_.plain.q, 0),         filled(c, whole_.plain.k, 0),
                  filled(c, whole_.plain.v, 0),         {},
                  filled(c, Values({1, 1, 1, c.D}), 0), filled(c, Values({1, 1, 1, c.D}), 0)};
    if (decay_of(c.module) != Decay::kNone) {
      const std::int64_t columns = c.module == Module::kGla ? c.D : 1;
      gradients_.decay_terms = filled(c, Values({c.n, c.B, c.H, columns}), 0);
    }
    for (std::size_t p = 0; p < kChunks; ++p) {
      const std::int64_t begin = kBorders[p], end = kBorders[p + 1];
      terms_.push_back(whole_.terms);
      if (c.module == Module::kGla) {
        terms_[p].log_decay = whole_.terms.log_decay.rows(begin, end);
      }
      tokens_.push_back({begin, 1, end - begin});
    }
  }

  LinearBlock block(std::size_t p) const {
    return {rows(whole_.q, p), rows(whole_.k, p), rows(whole_.v, p), tokens_[p], terms_[p]};
  }
  LinearGradients gradients(std::size_t p) const {
    LinearGradients part = gradients_;
    for (Tensor* tensor : {&part.d_q, &part.d_k, &part.d_v}) *tensor = rows(*tensor, p);
    if (part.decay_terms.defined()) part.decay_terms = rows(part.decay_terms, p);
    return part;
  }
  static Tensor rows(const Tensor& tensor, std::size_t p) {
    return tensor.rows(kBorders[p], kBorders[p + 1]);
  }
  Tensor state(std::int64_t more_columns = 0) {
    Tensor::Extents shape = expected_.after.value.shape;
    shape[3] += more_columns;
    return poisoned(shape, DType::kF32);
  }

  void check(const std::vector<Tensor>& after, const std::vector<Tensor>& d_after) {
    const LinearCase& c = GetParam();
    compare(c, sums_, expected_.sums, "sums");
    compare(c, gradients_.d_q, expected_.d_q, "d_q");
    compare(c, gradients_.d_k, expected_.d_k, "d_k");
    compare(c, gradients_.d_v, expected_.d_v, "d_v");
    if (c.module == Module::kRebased) {
      compare(c, gradients_.d_gamma, expected_.d_gamma, "d_gamma");
      compare(c, gradients_.d_beta, expected_.d_beta, "d_beta");
    }
    if (decay_of(c.module) == Decay::kNone) return;
    const bool per_head = decay_of(c.module) == Decay::kPerHead;
    const Tensor sum = filled(c, expected_.d_log_decay.value, 0);
    for (std::size_t p = 0; p < kChunks; ++p) {
      const Tensor part =
          per_head ? fresh(c, expected_.d_log_decay.value) : rows(gradients_.decay_terms, p);
      kernels_.linear_d_decay(block(p), rows(gradients_.decay_terms, p), after[p], d_after[p],
                              part);
      kernels_.add(per_head ? sum : rows(sum, p), part);
    }
    compare(c, sum, expected_.d_log_decay, "d_log_decay");
  }

  LinearOperands whole_;
  LinearResults expected_;
  std::vector<LinearTerms> terms_;
  std::vector<sp::Run> tokens_;
  Tensor sums_;
  LinearGradients gradients_;
};

TEST_P(LinearSplit, ChainOfStatesEqualsOneChunk) {
  std::vector<Tensor> after(kChunks), d_after(kChunks);
  Tensor before;
  for (std::size_t p = 0; p < kChunks; ++p) {
    after[p] = state();
    kernels_.linear_forward(block(p), before, rows(sums_, p), after[p]);
    before = after[p];
  }
  Tensor d_state;
  for (std::size_t p = kChunks; p-- > 0;) {
    d_after[p] = d_state;
    const Tensor d_before = state();
    kernels_.linear_d_q(block(p), p == 0 ? Tensor() : after[p - 1], rows(whole_.d_sums, p),
                        gradients(p), {});
    kernels_.linear_d_kv(block(p), d_state, rows(whole_.d_sums, p), gradients(p), d_before);
    d_state = d_before;
  }
  check(after, d_after);
}

TEST_P(LinearSplit, GatheredStatesEqualOneChunk) {
  const LinearCase& c = GetParam();
  const bool gated = c.module == Module::kGla;
  std::vector<StateSpan> own, d_own;
  for (std::size_t p = 0; p < kChunks; ++p) {
    const Tensor message = state(gated ? 1 : 0), d_message = state();
    const LinearBlock b = block(p);
    kernels_.linear_state({{}, b.k, b.v, b.tokens, b.terms}, message);
    kernels_.linear_d_state({b.q, {}, {}, b.tokens, b.terms}, rows(whole_.d_sums, p), d_message);
    const std::int64_t W = d_message.extent(3);
    const Tensor decay = gated ? message.slice(3, W, W + 1) : Tensor();
    own.push_back({message, tokens_[p], decay});
    d_own.push_back({d_message, tokens_[p], decay});
  }
  const auto summed = [&](const std::vector<StateSpan>& spans) {
    const Tensor sum = state();
    kernels_.fill(sum, 0);
    kernels_.linear_accumulate(sum, spans, whole_.terms);
    return sum;
  };
  std::vector<Tensor> after, d_after;
  for (std::size_t p = 0; p < kChunks; ++p) {
    const auto at = static_cast<std::ptrdiff_t>(p);
    const Tensor before = summed({own.begin(), own.begin() + at});
    d_after.push_back(summed({d_own.rbegin(), d_own.rend() - at - 1}));
    after.push_back(state());
    const LinearBlock b = block(p);
    kernels_.linear_forward(b, {}, rows(sums_, p), {});
    kernels_.linear_inter({b.q, {}, {}, b.tokens, b.terms}, before, rows(sums_, p));
    kernels_.linear_d_q(b, before, rows(whole_.d_sums, p), gradients(p), after[p]);
    kernels_.linear_d_kv(b, {}, rows(whole_.d_sums, p), gradients(p), {});
    kernels_.linear_d_kv_inter({{}, b.k, b.v, b.tokens, b.terms}, d_after[p], gradients(p));
  }
  check(after, d_after);
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinearSplit, ::testing::ValuesIn(split_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
