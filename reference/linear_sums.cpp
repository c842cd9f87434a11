// Linear attention by its equations, one query after the other, in double.
// Symbols are those of reference/README.md.
// SPDX-License-Identifier: Apache-2.0
#include "reference/linear_sums.hpp"

#include <algorithm>
#include <cmath>

#include "reference/attention.hpp"
#include "reference/feature_map.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {
namespace {

struct Sums {
  const Problem& problem;
  Module module;
  Decay decay;
  Index B, N, H, G, D, E;
  LayerNorm norm;                                      // Rebased
  Values q_raw, k_raw;                                 // [B, N, H, D], [B, N, G, D]: as given
  Values q, k, v, d_out;                               // Rebased: q and k after the layer norm
  Values log_decay;                                    // [H] or [B, N, H, D]
  Values d_q, d_k, d_v, d_log_decay, d_gamma, d_beta;  // d_q and d_k before the layer norm's part
  Values out;

  Sums(const Problem& p, const Inputs& inputs)
      : problem(p), module(p.module.value()), decay(decay_of(module)) {
    const Shape& s = p.shape;
    B = s.B, N = s.N, H = s.H, G = s.G, D = s.D, E = s.E;
    norm = layer_norm(p, inputs);
    q = q_raw = doubles(inputs.q, {B, N, H, D});
    k = k_raw = doubles(inputs.k, {B, N, G, D});
    v = doubles(inputs.v, {B, N, G, E});
    if (!inputs.d_out.absent()) d_out = doubles(inputs.d_out, {B, N, H, E});
    if (decay == Decay::kPerHead) log_decay = doubles(inputs.log_decay, {H});
    if (decay == Decay::kPerChannel) log_decay = doubles(inputs.log_decay, {B, N, H, D});
    out.resize(static_cast<std::size_t>(B * N * H * E));
    d_q.resize(q.size());
    d_k.resize(k.size());
    d_v.resize(v.size());
    d_log_decay.resize(log_decay.size());
    d_gamma.resize(static_cast<std::size_t>(D));
    d_beta.resize(d_gamma.size());
    if (module != Module::kRebased) return;
    for (Index row = 0; row < B * N * H; ++row)
      norm.apply(q_raw.data() + row * D, q.data() + row * D);
    for (Index row = 0; row < B * N * G; ++row)
      norm.apply(k_raw.data() + row * D, k.data() + row * D);
  }

  Index query(Index b, Index i, Index h) const { return (b * N + i) * H + h; }
  Index key(Index b, Index j, Index h) const { return (b * N + j) * G + h / (H / G); }
  bool same_document(Index b, Index i, Index j) const {  // neighbours i and j
    const std::int32_t* id = problem.mask.segment_ids.data();
    return problem.mask.segment_ids.empty() || id[b * N + i] == id[b * N + j];
  }
  // Where token t's entry for channel c of head h lies.
  Index decay_at(Index b, Index t, Index h, Index c) const {
    return decay == Decay::kPerHead ? h : query(b, t, h) * D + c;
  }

  // A key that a query sees, and the logarithm of what every channel loses in between.
  struct Pair {
    Index token;
    Values log_loss;  // [D]
    double weight = 0;
  };

  // The keys that query i sees: from i down to the first token of its document, then, unless
  // causal, from i + 1 up to the last.
  std::vector<Pair> pairs(Index b, Index i, Index h) const {
    std::vector<Pair> seen;
    Values log_loss(static_cast<std::size_t>(D));
    const auto lose = [&](Index t) {
      for (Index c = 0; c < D && decay != Decay::kNone; ++c)
        log_loss.data()[c] += log_decay.data()[decay_at(b, t, h, c)];
    };
    for (Index j = i; j >= 0 && same_document(b, j, std::min(i, j + 1)); --j) {
      if (j < i) lose(j + 1);
      seen.push_back({j, log_loss});
    }
    log_loss.assign(log_loss.size(), 0);
    for (Index j = i + 1; !problem.mask.causal && j < N && same_document(b, j - 1, j); ++j) {
      lose(j);
      seen.push_back({j, log_loss});
    }
    for (Pair& pair : seen)
      pair.weight = weight(q.data() + query(b, i, h) * D, k.data() + key(b, pair.token, h) * D,
                           pair.log_loss);
    return seen;
  }

  double weight(const double* q_i, const double* k_j, const Values& log_loss) const {
    const double size = static_cast<double>(D);
    if (module == Module::kBased) {
      const double s = dot(q_i, k_j, D) / std::sqrt(size);
      return 1 + s + s * s / 2;
    }
    if (module == Module::kRebased) {
      const double s = dot(q_i, k_j, D);
      return s * s / size;
    }
    double sum = 0;
    for (Index c = 0; c < D; ++c) sum += q_i[c] * k_j[c] * std::exp(log_loss.data()[c]);
    return problem.scale * sum;
  }

  // Derivatives of a weight: by the product q_c k_c of each channel.
  Values slopes(const double* q_i, const double* k_j, const Values& log_loss) const {
    const double size = static_cast<double>(D);
    Values slope(static_cast<std::size_t>(D));
    for (Index c = 0; c < D; ++c) {
      double& d = slope.data()[c];
      if (module == Module::kBased)
        d = (1 + dot(q_i, k_j, D) / std::sqrt(size)) / std::sqrt(size);
      else if (module == Module::kRebased)
        d = 2 * dot(q_i, k_j, D) / size;
      else
        d = problem.scale * std::exp(log_loss.data()[c]);
    }
    return slope;
  }

  // out of one query, and what it adds to all gradients.
  void query_row(Index b, Index i, Index h) {
    const std::vector<Pair> seen = pairs(b, i, h);
    const Index row = query(b, i, h);
    double* out_i = out.data() + row * E;
    double sum = 0;
    for (const Pair& pair : seen) {
      sum += pair.weight;
      add_scaled(out_i, pair.weight, v.data() + key(b, pair.token, h) * E, E);
    }
    const double normaliser = is_normalised(module) ? sum + problem.epsilon : 1;
    for (Index e = 0; e < E; ++e) out_i[e] /= normaliser;
    if (d_out.empty()) return;

    const double* d_out_i = d_out.data() + row * E;
    const double delta = is_normalised(module) ? dot(d_out_i, out_i, E) : 0;
    const double* q_i = q.data() + row * D;
    Values d_log_loss(seen.size() * static_cast<std::size_t>(D));  // [pair, D]
    for (Index n = 0; n < std::ssize(seen); ++n) {
      const Pair& pair = seen.data()[n];
      const Index to = key(b, pair.token, h);
      const double* k_j = k.data() + to * D;
      const double d_weight = (dot(d_out_i, v.data() + to * E, E) - delta) / normaliser;
      add_scaled(d_v.data() + to * E, pair.weight / normaliser, d_out_i, E);
      const Values slope = slopes(q_i, k_j, pair.log_loss);
      for (Index c = 0; c < D; ++c) {
        const double d = d_weight * slope.data()[c];
        d_q.data()[row * D + c] += d * k_j[c];
        d_k.data()[to * D + c] += d * q_i[c];
        d_log_loss.data()[n * D + c] = d * q_i[c] * k_j[c];
      }
    }
    if (decay != Decay::kNone) add_decay_gradients(b, i, h, seen, d_log_loss);
  }

  // The loss of a pair is the sum of the decays of the tokens after the earlier one up to the later
  // one: each of them gets the pair's gradient. Pairs are taken from the outermost inwards, so that
  // `total` holds those that enclose the token.
  void add_decay_gradients(Index b, Index i, Index h, const std::vector<Pair>& seen,
                           const Values& d_log_loss) {
    for (Index c = 0; c < D; ++c) {
      double before = 0, behind = 0;
      for (Index n = std::ssize(seen) - 1; n >= 0; --n) {
        const Index j = seen.data()[n].token;
        if (j == i) continue;
        double& total = j < i ? before : behind;
        total += d_log_loss.data()[n * D + c];
        d_log_decay.data()[decay_at(b, j < i ? j + 1 : j, h, c)] += total;
      }
    }
  }

  // The layer norm's part of the gradients.
  void finish() {
    if (module != Module::kRebased || d_out.empty()) return;
    Values d_q_raw(d_q.size()), d_k_raw(d_k.size());
    for (Index row = 0; row < B * N * H; ++row)
      norm.backward(q_raw.data() + row * D, d_q.data() + row * D, d_q_raw.data() + row * D,
                    d_gamma.data(), d_beta.data());
    for (Index row = 0; row < B * N * G; ++row)
      norm.backward(k_raw.data() + row * D, d_k.data() + row * D, d_k_raw.data() + row * D,
                    d_gamma.data(), d_beta.data());
    d_q = d_q_raw;
    d_k = d_k_raw;
  }
};

// The window part of Based.
void add_softmax(const Problem& problem, const Inputs& inputs, Sums& sums) {
  Problem window = problem;
  window.module.reset();
  window.scale = default_scale(problem.shape);
  const Outputs softmax = attention(window, inputs);
  const auto add = [](Values& sum, const HostTensor& part) {
    if (!part.absent()) add_scaled(sum.data(), 1, part.as<double>().data(), part.size());
  };
  add(sums.out, softmax.out);
  add(sums.d_q, softmax.d_q);
  add(sums.d_k, softmax.d_k);
  add(sums.d_v, softmax.d_v);
}

}  // namespace

Outputs linear_sums(const Problem& problem, const Inputs& inputs) {
  const auto [B, N, H, G, D, E] = problem.shape;
  Sums sums(problem, inputs);
  for (Index b = 0; b < B; ++b)
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < N; ++i) sums.query_row(b, i, h);
  sums.finish();
  if (problem.mask.window > 0) add_softmax(problem, inputs, sums);

  const auto tensor = [](std::vector<Index> shape, const Values& values) {
    return HostTensor::from_doubles(DType::kF64, std::move(shape), values);
  };
  Outputs result;
  result.out = tensor({B, N, H, E}, sums.out);
  if (inputs.d_out.absent()) return result;
  result.d_q = tensor({B, N, H, D}, sums.d_q);
  result.d_k = tensor({B, N, G, D}, sums.d_k);
  result.d_v = tensor({B, N, G, E}, sums.d_v);
  if (sums.decay != Decay::kNone)
    result.d_log_decay = tensor(inputs.log_decay.shape(), sums.d_log_decay);
  if (sums.module != Module::kRebased) return result;
  result.d_gamma = tensor({D}, sums.d_gamma);
  result.d_beta = tensor({D}, sums.d_beta);
  return result;
}

}  // namespace sp::reference
