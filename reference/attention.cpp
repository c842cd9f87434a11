// Softmax attention by its equations, one query row and one key row at a time, in double.
//
// The row functions are the definition; the full function calls them for every token, so a sampled
// row has the bits of the full result. Symbols are those of reference/README.md.
// SPDX-License-Identifier: Apache-2.0
#include "reference/attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <string>

#include "reference/projection.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {
namespace {

// Attention of N queries over M keys: the tokens' own (M = N), or the projected ones (M = K').
struct Attention {
  const Mask& mask;
  double scale;
  Index B, N, H, G, D, E, M;
  Values q, k, v;  // [B, N, H, D], [B, M, G, D], [B, M, G, E]
  Values d_out;    // [B, N, H, E], empty: forward only

  Attention(const Problem& problem, const Inputs& inputs)
      : mask(problem.mask), scale(problem.scale) {
    const bool projected = problem.family() == Family::kProjectedSoftmax;
    const Shape& s = problem.shape;
    B = s.B, N = s.N, H = s.H, G = s.G, D = s.D, E = s.E;
    M = projected ? problem.projected : N;
    q = doubles(inputs.q, {B, N, H, D});
    k = projected ? Projection(problem, inputs.projection_k, inputs.k).forward()
                  : doubles(inputs.k, {B, N, G, D});
    v = projected ? Projection(problem, inputs.projection_v, inputs.v).forward()
                  : doubles(inputs.v, {B, N, G, E});
    if (!inputs.d_out.absent()) d_out = doubles(inputs.d_out, {B, N, H, E});
  }

  Index group(Index h) const { return h / (H / G); }
  Index query(Index b, Index i, Index h) const { return (b * N + i) * H + h; }
  Index key(Index b, Index j, Index g) const { return (b * M + j) * G + g; }

  bool sees(Index b, Index i, Index j) const {
    if (mask.causal && j > i) return false;
    if (mask.window > 0 && std::abs(i - j) >= mask.window) return false;
    const std::int32_t* id = mask.segment_ids.data();
    return mask.segment_ids.empty() || id[b * N + i] == id[b * N + j];
  }

  // One query: out [E] and, when there is a cotangent, d_q [D], zero on entry. Returns its lse.
  double query_row(Index b, Index i, Index h, double* out, double* d_q) const {
    const double* q_i = q.data() + query(b, i, h) * D;
    std::vector<Index> seen;  // rows of k and v
    Values p;                 // scores first, then probabilities
    for (Index j = 0; j < M; ++j) {
      if (!sees(b, i, j)) continue;
      seen.push_back(key(b, j, group(h)));
      p.push_back(scale * dot(q_i, k.data() + seen.back() * D, D));
    }
    if (seen.empty()) return -std::numeric_limits<double>::infinity();

    const double largest = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& score : p) sum += (score = std::exp(score - largest));
    for (double& weight : p) weight /= sum;
    for (std::size_t n = 0; n < p.size(); ++n) add_scaled(out, p[n], v.data() + seen[n] * E, E);
    if (d_out.empty()) return largest + std::log(sum);

    const double* d_out_i = d_out.data() + query(b, i, h) * E;
    const double delta = dot(d_out_i, out, E);
    for (std::size_t n = 0; n < p.size(); ++n) {
      const double d_p = dot(d_out_i, v.data() + seen[n] * E, E);
      add_scaled(d_q, scale * p[n] * (d_p - delta), k.data() + seen[n] * D, D);
    }
    return largest + std::log(sum);
  }

  // One key: d_k [D] and d_v [E], zero on entry, from lse [B, H, N] and delta [B, N, H] of every
  // query.
  void key_row(Index b, Index j, Index g, const Values& lse, const Values& delta, double* d_k,
               double* d_v) const {
    const double* k_j = k.data() + key(b, j, g) * D;
    const double* v_j = v.data() + key(b, j, g) * E;
    for (Index h = 0; h < H; ++h) {
      for (Index i = 0; i < N; ++i) {
        if (group(h) != g || !sees(b, i, j)) continue;
        const Index row = query(b, i, h);
        const double* q_i = q.data() + row * D;
        const double* d_out_i = d_out.data() + row * E;
        const double p = std::exp(scale * dot(q_i, k_j, D) - lse.data()[(b * H + h) * N + i]);
        const double d_p = dot(d_out_i, v_j, E);
        add_scaled(d_v, p, d_out_i, E);
        add_scaled(d_k, scale * p * (d_p - delta.data()[row]), q_i, D);
      }
    }
  }

  // Chosen keys: d_k [B, keys, G, D] and d_v [B, keys, G, E].
  void key_rows(std::span<const Index> keys, const Values& out, const Values& lse, double* d_k,
                double* d_v) const {
    Values delta;  // [B, N, H]
    for (Index row = 0; row < B * N * H; ++row)
      delta.push_back(dot(d_out.data() + row * E, out.data() + row * E, E));
    for (Index b = 0; b < B; ++b)
      for (const Index j : keys)
        for (Index g = 0; g < G; ++g, d_k += D, d_v += E) key_row(b, j, g, lse, delta, d_k, d_v);
  }
};

std::vector<Index> first(Index count) {
  std::vector<Index> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), Index{0});
  return indices;
}

void require_tokens(std::span<const Index> tokens, Index N) {
  for (const Index t : tokens)
    if (t < 0 || t >= N)
      throw Error(ErrorKind::kUsage, "token " + std::to_string(t) +
                                         " does not exist; the problem has " + std::to_string(N) +
                                         " tokens, counted from 0");
}

}  // namespace

Outputs attention(const Problem& problem, const Inputs& inputs) {
  const std::vector<Index> all = first(problem.shape.N);
  Outputs result = attention_rows(problem, inputs, all);
  if (inputs.d_out.absent()) return result;
  Outputs keys = attention_key_rows(problem, inputs, result.out, result.lse, all);
  keys.out = std::move(result.out);
  keys.lse = std::move(result.lse);
  keys.d_q = std::move(result.d_q);
  return keys;
}

Outputs attention_rows(const Problem& problem, const Inputs& inputs,
                       std::span<const Index> tokens) {
  require_tokens(tokens, problem.shape.N);
  const Attention attention(problem, inputs);
  const auto [B, N, H, G, D, E] = problem.shape;
  const Index count = std::ssize(tokens);
  const bool backward = !inputs.d_out.absent();
  Outputs result;
  result.out = HostTensor(DType::kF64, {B, count, H, E});
  result.lse = HostTensor(DType::kF64, {B, H, count});
  if (backward) result.d_q = HostTensor(DType::kF64, {B, count, H, D});
  double* out = result.out.as<double>().data();
  double* lse = result.lse.as<double>().data();
  double* d_q = result.d_q.as<double>().data();
  for (Index b = 0; b < B; ++b)
    for (Index r = 0; r < count; ++r)
      for (Index h = 0; h < H; ++h, out += E, d_q += backward ? D : 0)
        lse[(b * H + h) * count + r] = attention.query_row(b, tokens.data()[r], h, out, d_q);
  return result;
}

Outputs attention_key_rows(const Problem& problem, const Inputs& inputs, const HostTensor& out,
                           const HostTensor& lse, std::span<const Index> tokens) {
  require_tokens(tokens, problem.shape.N);
  SP_CHECK(!inputs.d_out.absent(), "gradients need the cotangent d_out");
  const Attention attention(problem, inputs);
  const auto [B, N, H, G, D, E] = problem.shape;
  const Values outs = doubles(out, {B, N, H, E});
  const Values lses = doubles(lse, {B, H, N});
  const Index count = std::ssize(tokens);
  Outputs result;
  result.d_k = HostTensor(DType::kF64, {B, count, G, D});
  result.d_v = HostTensor(DType::kF64, {B, count, G, E});
  double* d_k = result.d_k.as<double>().data();
  double* d_v = result.d_v.as<double>().data();
  if (problem.family() == Family::kSoftmax) {
    attention.key_rows(tokens, outs, lses, d_k, d_v);
    return result;
  }
  Values d_keys(attention.k.size()), d_values(attention.v.size());  // of the projected ones
  attention.key_rows(first(attention.M), outs, lses, d_keys.data(), d_values.data());
  result.d_projection_k = HostTensor(DType::kF64, {count, attention.M});
  result.d_projection_v = HostTensor(DType::kF64, {count, attention.M});
  Projection(problem, inputs.projection_k, inputs.k)
      .backward(d_keys, tokens, d_k, result.d_projection_k.as<double>().data());
  Projection(problem, inputs.projection_v, inputs.v)
      .backward(d_values, tokens, d_v, result.d_projection_v.as<double>().data());
  return result;
}

}  // namespace sp::reference
