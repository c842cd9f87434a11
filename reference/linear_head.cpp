// SPDX-License-Identifier: Apache-2.0
#include "reference/linear_head.hpp"

#include <algorithm>
#include <cmath>

namespace sp::reference {
namespace {

void widen_row(const HostTensor& tensor, Index row, Index size, double* target) {
  visit_dtype(tensor.dtype(), [&]<class T>() {
    const T* source = tensor.as<T>().data() + row * size;
    for (Index c = 0; c < size; ++c) target[c] = static_cast<double>(widen(source[c]));
  });
}

Values widened_row(const HostTensor& tensor, Index row, Index size) {
  Values values(static_cast<std::size_t>(size));
  widen_row(tensor, row, size, values.data());
  return values;
}

}  // namespace

Head::Head(const Problem& problem, const Inputs& inputs, const FeatureMap& map, Index b, Index h)
    : N(problem.shape.N),
      F(map.features()),
      W(problem.shape.E + (is_normalised(*problem.module) ? 1 : 0)),
      problem_(problem),
      inputs_(inputs),
      map_(map),
      b_(b),
      h_(h),
      g_(h / (problem.shape.H / problem.shape.G)),
      normalised_(is_normalised(*problem.module)),
      kind_(decay_of(*problem.module)) {
  const auto tokens = static_cast<std::size_t>(normalised_ ? N : 0);
  denominator_.resize(tokens);
  delta_.resize(tokens);
  d_gamma.resize(static_cast<std::size_t>(problem.shape.D));
  d_beta.resize(d_gamma.size());
  if (kind_ == Decay::kPerHead) head_decay_ = std::exp(inputs.log_decay.at(h));
}

bool Head::joined(Index j) const {
  if (j <= 0 || j >= N) return false;
  const auto& ids = problem_.mask.segment_ids;
  return ids.empty() || ids.data()[b_ * N + j - 1] == ids.data()[b_ * N + j];
}

void Head::decay(Index j, double* a) const {
  std::fill_n(a, F, head_decay_);
  if (kind_ != Decay::kPerChannel) return;
  widen_row(inputs_.log_decay, query_row(j), F, a);
  for (Index f = 0; f < F; ++f) a[f] = std::exp(a[f]);
}

void Head::query(Index j, double* phi) const {
  map_.apply(widened_row(inputs_.q, query_row(j), problem_.shape.D).data(), phi);
  for (Index f = 0; f < F; ++f) phi[f] *= problem_.scale;
}

void Head::key(Index j, double* phi) const {
  map_.apply(widened_row(inputs_.k, key_row(j), problem_.shape.D).data(), phi);
}

void Head::value(Index j, double* v) const {
  widen_row(inputs_.v, key_row(j), problem_.shape.E, v);
  if (normalised_) v[W - 1] = 1;
}

void Head::output(Index j, const double* sums, double* out) {
  const Index E = problem_.shape.E;
  std::copy_n(sums, E, out);
  if (!normalised_) return;
  double& denominator = denominator_.data()[j];
  denominator = sums[E] + problem_.epsilon;
  for (Index e = 0; e < E; ++e) out[e] /= denominator;
  if (inputs_.d_out.absent()) return;
  delta_.data()[j] = dot(widened_row(inputs_.d_out, query_row(j), E).data(), out, E);
}

// out = num / den: d_num = d_out / den, d_den = -<d_out, out> / den.
void Head::d_sums(Index j, double* d) const {
  widen_row(inputs_.d_out, query_row(j), problem_.shape.E, d);
  if (!normalised_) return;
  d[W - 1] = -delta_.data()[j];
  for (Index w = 0; w < W; ++w) d[w] /= denominator_.data()[j];
}

void Head::d_query(Index j, Values d_phi, double* d_q) {
  for (double& d : d_phi) d *= problem_.scale;
  map_.backward(widened_row(inputs_.q, query_row(j), problem_.shape.D).data(), d_phi.data(), d_q,
                d_gamma.data(), d_beta.data());
}

void Head::d_key(Index j, const Values& d_phi, double* d_k) {
  map_.backward(widened_row(inputs_.k, key_row(j), problem_.shape.D).data(), d_phi.data(), d_k,
                d_gamma.data(), d_beta.data());
}

}  // namespace sp::reference
