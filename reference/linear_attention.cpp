// Linear attention by its recurrence: one head at a time, sweeps over its tokens.
//
// Outputs read the state of keys and values forth up to their own token and, unless causal, back from
// the next one; gradients of keys and values read the state of queries and cotangents the other way
// round. The full function asks for every row, so a chosen row has the bits of the full result.
// Symbols are those of reference/README.md.
// SPDX-License-Identifier: Apache-2.0
#include "reference/linear_attention.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "reference/linear_head.hpp"
#include "reference/linear_state.hpp"
#include "reference/linear_sweep.hpp"
#include "reference/linear_window.hpp"

namespace sp::reference {
namespace {

// The rows of the result that a token has: none, one, or several when it was asked for repeatedly.
class Rows {
 public:
  explicit Rows(std::span<const Index> tokens) {
    for (Index r = 0; r < std::ssize(tokens); ++r) rows_.emplace_back(tokens.data()[r], r);
    std::sort(rows_.begin(), rows_.end());
  }
  Index count() const { return std::ssize(rows_); }
  bool has(Index token) const { return begin(token) != end(token); }
  // Of a token that was asked for: one place below count() that no other token has.
  Index place(Index token) const { return begin(token) - rows_.begin(); }
  // sum [B, rows, heads, size] += values [size]
  void add(HostTensor& sum, Index b, Index token, Index head, const Values& values) const {
    const Index heads = sum.extent(2), size = sum.extent(3);
    for (auto row = begin(token); row != end(token); ++row)
      add_scaled(sum.as<double>().data() + ((b * count() + row->second) * heads + head) * size, 1,
                 values.data(), size);
  }

 private:
  using Iterator = std::vector<std::pair<Index, Index>>::const_iterator;
  Iterator begin(Index token) const {
    return std::lower_bound(rows_.begin(), rows_.end(), std::pair(token, Index{0}));
  }
  Iterator end(Index token) const {
    return std::lower_bound(rows_.begin(), rows_.end(), std::pair(token + 1, Index{0}));
  }
  std::vector<std::pair<Index, Index>> rows_;  // (token, row), sorted
};

class LinearAttention {
 public:
  LinearAttention(const Problem& problem, const Inputs& inputs, std::span<const Index> tokens)
      : problem_(problem), inputs_(inputs), map_(problem, inputs), rows_(tokens) {
    const auto [B, N, H, G, D, E] = problem.shape;
    result_.out = HostTensor(DType::kF64, {B, rows_.count(), H, E});
    if (inputs.d_out.absent()) return;
    result_.d_q = HostTensor(DType::kF64, {B, rows_.count(), H, D});
    result_.d_k = HostTensor(DType::kF64, {B, rows_.count(), G, D});
    result_.d_v = HostTensor(DType::kF64, {B, rows_.count(), G, E});
  }

  // Gradients of decays and parameters belong to all tokens: only with `parameters`.
  Outputs run(bool parameters) {
    const bool backward = !inputs_.d_out.absent();
    if (parameters && backward) make_parameter_gradients();
    for (Index b = 0; b < problem_.shape.B; ++b) {
      for (Index h = 0; h < problem_.shape.H; ++h) {
        Head head(problem_, inputs_, map_, b, h);
        outputs_and_queries(head, b, h);
        if (backward) keys_and_values(head, b, h);
        if (parameters && backward) add_parameter_gradients(head, b, h);
      }
    }
    return std::move(result_);
  }

 private:
  bool causal() const { return problem_.mask.causal; }

  // out and d_q: the state of keys and values, forth up to the own token, back from the next one.
  void outputs_and_queries(Head& head, Index b, Index h) {
    const Index E = problem_.shape.E, D = problem_.shape.D;
    const bool backward = !inputs_.d_out.absent();
    const bool every = backward && is_normalised(*problem_.module);  // d_sums needs every output
    Values phi = zeros(head.F), d = zeros(head.W);
    const auto wanted = [&](Index j) { return every || rows_.has(j); };
    // Sums over the keys after each token whose output is wanted.
    Values later = zeros(causal() ? 0 : (every ? head.N : rows_.count()) * head.W);
    const auto place = [&](Index j) { return (every ? j : rows_.place(j)) * head.W; };
    State state(head.F, head.W);
    if (!causal()) {
      const auto read = [&](Index j, State& keys, const Values& a) {
        if (!wanted(j)) return;
        head.query(j, phi.data());
        for (Index f = 0; f < head.F; ++f) phi.data()[f] *= a.data()[f];
        keys.add_columns(phi.data(), later.data() + place(j));
      };
      sweep(head, Order::kBack, 0, head.N, state, keys_of(head), read, kNothingAfter);
    }
    sweep(head, Order::kForth, 0, head.N, state, keys_of(head), kNothingBefore,
          [&](Index j, State& keys) {
            if (!wanted(j)) return;
            Values sums = zeros(head.W), out = zeros(E);
            if (!causal()) std::copy_n(later.data() + place(j), head.W, sums.data());
            head.query(j, phi.data());
            keys.add_columns(phi.data(), sums.data());
            head.output(j, sums.data(), out.data());
            rows_.add(result_.out, b, j, h, out);
            if (!rows_.has(j) || !backward) return;
            Values d_phi = zeros(head.F), d_q = zeros(D);
            head.d_sums(j, d.data());
            keys.add_rows(d.data(), d_phi.data());
            head.d_query(j, d_phi, d_q.data());
            rows_.add(result_.d_q, b, j, h, d_q);
          });
    if (causal() || !backward) return;
    const auto read = [&](Index j, State& keys, const Values& a) {
      if (!rows_.has(j)) return;
      Values d_phi = zeros(head.F), d_q = zeros(D);
      head.d_sums(j, d.data());
      keys.add_rows(d.data(), d_phi.data());
      for (Index f = 0; f < head.F; ++f) d_phi.data()[f] *= a.data()[f];
      head.d_query(j, d_phi, d_q.data());
      rows_.add(result_.d_q, b, j, h, d_q);
    };
    sweep(head, Order::kBack, 0, head.N, state, keys_of(head), read, kNothingAfter);
  }

  // d_k and d_v: the state of queries and cotangents, back down to the own token, forth to the one
  // before.
  void keys_and_values(Head& head, Index b, Index h) {
    const Index g = h / (problem_.shape.H / problem_.shape.G);
    State state(head.F, head.W);
    const auto read = [&](Index j, State& queries, const Values& a) {
      if (!rows_.has(j)) return;
      Values phi = zeros(head.F), v = zeros(head.W), d_phi = zeros(head.F);
      Values d_v = zeros(head.W), d_k = zeros(problem_.shape.D);
      head.key(j, phi.data());
      head.value(j, v.data());
      queries.add_rows(v.data(), d_phi.data());
      for (Index f = 0; f < head.F; ++f) {
        d_phi.data()[f] *= a.data()[f];
        phi.data()[f] *= a.data()[f];
      }
      queries.add_columns(phi.data(), d_v.data());
      head.d_key(j, d_phi, d_k.data());
      rows_.add(result_.d_k, b, j, g, d_k);
      rows_.add(result_.d_v, b, j, g, d_v);  // without the column of ones
    };
    const Values no_loss(static_cast<std::size_t>(head.F), 1.0);
    sweep(head, Order::kBack, 0, head.N, state, queries_of(head), kNothingBefore,
          [&](Index j, State& queries) { read(j, queries, no_loss); });
    if (!causal())
      sweep(head, Order::kForth, 0, head.N, state, queries_of(head), read, kNothingAfter);
  }

  void make_parameter_gradients() {
    const HostTensor Inputs::* inputs[] = {&Inputs::log_decay, &Inputs::gamma, &Inputs::beta};
    HostTensor Outputs::* outputs[] = {&Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta};
    const bool present[] = {decay_of(*problem_.module) != Decay::kNone,
                            problem_.module == Module::kRebased,
                            problem_.module == Module::kRebased};
    for (std::size_t n = 0; n < 3; ++n)
      if (present[n]) result_.*outputs[n] = HostTensor(DType::kF64, (inputs_.*inputs[n]).shape());
  }

  void add_parameter_gradients(const Head& head, Index b, Index h) {
    if (problem_.module == Module::kRebased) {
      add_scaled(result_.d_gamma.as<double>().data(), 1, head.d_gamma.data(), problem_.shape.D);
      add_scaled(result_.d_beta.as<double>().data(), 1, head.d_beta.data(), problem_.shape.D);
    }
    if (decay_of(*problem_.module) == Decay::kNone) return;
    decay_gradient(head, keys_of(head), queries_of(head), b, h);
    if (!causal()) decay_gradient(head, queries_of(head), keys_of(head), b, h);
  }

  // A border's decay multiplies the state S of the tokens before it, which meets the state T of the
  // tokens after it: d log a = a sum_w S_w T_w.
  template <class Before, class After>
  void decay_gradient(const Head& head, Before tokens_before, After tokens_after, Index b,
                      Index h) {
    double* d = result_.d_log_decay.as<double>().data();
    const bool per_head = decay_of(*problem_.module) == Decay::kPerHead;
    States states(head, tokens_before);
    State state(head.F, head.W);
    Values a = zeros(head.F);
    sweep(head, Order::kBack, 0, head.N, state, tokens_after, kNothingBefore,
          [&](Index j, State& after) {
            if (!head.joined(j)) return;
            head.decay(j, a.data());
            const double* s = states.after(j - 1);
            const double* t = after.values().data();
            for (Index f = 0; f < head.F; ++f) {
              const Index to =
                  per_head ? h : ((b * head.N + j) * problem_.shape.H + h) * head.F + f;
              d[to] += a.data()[f] * dot(s + f * head.W, t + f * head.W, head.W);
            }
          });
  }

  const Problem& problem_;
  const Inputs& inputs_;
  FeatureMap map_;
  Rows rows_;
  Outputs result_;
};

void require(const Problem& problem, const Inputs& inputs, std::span<const Index> tokens) {
  const auto [B, N, H, G, D, E] = problem.shape;
  SP_CHECK(problem.family() == Family::kLinear, "linear attention of a problem without module");
  SP_CHECK(inputs.q.shape() == (std::vector{B, N, H, D}),
           "q is " + describe_shape(inputs.q.shape()));
  SP_CHECK(inputs.k.shape() == (std::vector{B, N, G, D}),
           "k is " + describe_shape(inputs.k.shape()));
  SP_CHECK(inputs.v.shape() == (std::vector{B, N, G, E}),
           "v is " + describe_shape(inputs.v.shape()));
  SP_CHECK(inputs.d_out.absent() || inputs.d_out.shape() == (std::vector{B, N, H, E}),
           "d_out is " + describe_shape(inputs.d_out.shape()));
  const Decay decay = decay_of(*problem.module);
  SP_CHECK(decay != Decay::kPerHead || inputs.log_decay.shape() == std::vector{H},
           "log_decay is " + describe_shape(inputs.log_decay.shape()));
  SP_CHECK(decay != Decay::kPerChannel || inputs.log_decay.shape() == (std::vector{B, N, H, D}),
           "log_decay is " + describe_shape(inputs.log_decay.shape()));
  for (const Index t : tokens)
    if (t < 0 || t >= N)
      throw Error(ErrorKind::kUsage, "token " + std::to_string(t) +
                                         " does not exist; the problem has " + std::to_string(N) +
                                         " tokens, counted from 0");
}

}  // namespace

Outputs linear_attention(const Problem& problem, const Inputs& inputs) {
  std::vector<Index> all(static_cast<std::size_t>(problem.shape.N));
  std::iota(all.begin(), all.end(), Index{0});
  require(problem, inputs, all);
  Outputs result = LinearAttention(problem, inputs, all).run(true);
  add_window(problem, inputs, result);
  return result;
}

Outputs linear_attention_rows(const Problem& problem, const Inputs& inputs,
                              std::span<const Index> tokens) {
  require(problem, inputs, tokens);
  Outputs result = LinearAttention(problem, inputs, tokens).run(false);
  add_window_rows(problem, inputs, tokens, result);
  return result;
}

}  // namespace sp::reference
