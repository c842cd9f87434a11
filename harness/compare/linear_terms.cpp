// Plain loops over pairs of tokens. Letters are those of reference/README.md.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/linear_terms.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/compare/head_rows.hpp"
#include "harness/compare/normalised_sizes.hpp"

namespace sp {
namespace {

using std::int64_t;
using Values = std::vector<double>;

Values absolute(const HostTensor& tensor) {
  Values values(at(tensor.size()));
  for (int64_t i = 0; i < tensor.size(); ++i) values[at(i)] = std::fabs(tensor.at(i));
  return values;
}

// Modules without a feature map: every result is a sum of products of inputs.
class Terms : HeadRows {
 public:
  Terms(const Problem& problem, const Inputs& inputs, const Outputs& exact)
      : HeadRows{problem.shape},
        problem_(problem),
        inputs_(inputs),
        decay_(decay_of(*problem.module)),
        q_(absolute(inputs.q)),
        k_(absolute(inputs.k)),
        v_(absolute(inputs.v)),
        d_out_(absolute(inputs.d_out)) {
    for (const auto x :
         {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v, &Outputs::d_log_decay})
      sums_.*x = zeros_like(exact.*x);
  }

  Outputs run() {
    for (int64_t b = 0; b < shape.B; ++b) {
      for (int64_t h = 0; h < shape.H; ++h) run_head(b, h);
    }
    return std::move(sums_);
  }

 private:
  bool border(int64_t b, int64_t n) const {  // between n - 1 and n
    const auto& ids = problem_.mask.segment_ids;
    return !ids.empty() && ids[at(b * shape.N + n)] != ids[at(b * shape.N + n - 1)];
  }

  // f(j, i, decays) for every visible pair of one head, with one decay per channel or one for all.
  template <class F>
  void for_each_pair(int64_t b, int64_t h, F&& f) const {
    const int64_t channels = decay_ == Decay::kPerChannel ? shape.D : 1;
    for (int64_t j = 0; j < shape.N; ++j) {
      for (const int64_t step : {-1, 1}) {
        Values logs(at(channels)), decays(at(channels), 1.0);
        for (int64_t i = j; i >= 0 && i < shape.N; i += step) {
          if (i != j) {
            const int64_t later = std::max(i, i - step);
            if (border(b, later)) break;
            for (int64_t c = 0; c < channels; ++c) {
              if (decay_ == Decay::kPerHead) logs[at(c)] += inputs_.log_decay.at(h);
              if (decay_ == Decay::kPerChannel)
                logs[at(c)] += inputs_.log_decay.at(query(b, later, h) * shape.D + c);
              // The exponent is off by w times itself.
              decays[at(c)] = std::exp(logs[at(c)]) * (1 - logs[at(c)]);
            }
          }
          if (i != j || step < 0) f(j, i, decays);
        }
        if (problem_.mask.causal) break;
      }
    }
  }

  void run_head(int64_t b, int64_t h) {
    const int64_t D = shape.D, E = shape.E;
    const bool backward = !inputs_.d_out.absent();
    Values d_q(at(shape.N * D)), d_k(at(shape.N * D));  // of this head
    for_each_pair(b, h, [&](int64_t j, int64_t i, const Values& decays) {
      const int64_t q = query(b, j, h), k = key(b, i, h);
      const auto decay = [&](int64_t c) { return decays[decays.size() == 1 ? 0 : at(c)]; };
      double score = 0, d_score = 0;
      for (int64_t c = 0; c < D; ++c) score += decay(c) * q_[at(q * D + c)] * k_[at(k * D + c)];
      score *= std::fabs(problem_.scale);
      for (int64_t e = 0; e < E; ++e) add(sums_.out, q * E + e, score * v_[at(k * E + e)]);
      if (!backward) return;
      for (int64_t e = 0; e < E; ++e) {
        d_score += d_out_[at(q * E + e)] * v_[at(k * E + e)];
        add(sums_.d_v, k * E + e, score * d_out_[at(q * E + e)]);
      }
      d_score *= std::fabs(problem_.scale);
      for (int64_t c = 0; c < D; ++c) {
        d_q[at(j * D + c)] += d_score * decay(c) * k_[at(k * D + c)];
        d_k[at(i * D + c)] += d_score * decay(c) * q_[at(q * D + c)];
      }
    });
    if (!backward) return;
    for (int64_t n = 0; n < shape.N; ++n) {
      for (int64_t c = 0; c < D; ++c) {
        add(sums_.d_q, query(b, n, h) * D + c, d_q[at(n * D + c)]);
        add(sums_.d_k, key(b, n, h) * D + c, d_k[at(n * D + c)]);
      }
    }
    decay_head(b, h, d_q, d_k);
  }

  // Decays are differentiated through sums of q d_q - k d_k up to the end of a document, at most.
  void decay_head(int64_t b, int64_t h, const Values& d_q, const Values& d_k) {
    if (decay_ == Decay::kNone) return;
    for (int64_t c = 0; c < shape.D; ++c) {
      double sum = 0;
      for (int64_t n = shape.N - 1; n >= 0; --n) {
        sum += q_[at(query(b, n, h) * shape.D + c)] * d_q[at(n * shape.D + c)] +
               k_[at(key(b, n, h) * shape.D + c)] * d_k[at(n * shape.D + c)];
        add(sums_.d_log_decay, decay_ == Decay::kPerHead ? h : query(b, n, h) * shape.D + c, sum);
        if (n > 0 && border(b, n)) sum = 0;
      }
    }
  }

  static void add(HostTensor& tensor, int64_t element, double value) {
    tensor.as<double>()[at(element)] += value;
  }

  const Problem& problem_;
  const Inputs& inputs_;
  const Decay decay_;
  const Values q_, k_, v_, d_out_;
  Outputs sums_;
};

}  // namespace

Outputs linear_terms(const Problem& problem, const Inputs& inputs, const Outputs& exact) {
  if (is_normalised(*problem.module)) return normalised_sizes(problem, inputs, exact);
  return Terms(problem, inputs, exact).run();
}

}  // namespace sp
