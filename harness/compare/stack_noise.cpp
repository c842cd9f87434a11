// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/stack_noise.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/compare/limits.hpp"
#include "harness/compare/linear_sizes.hpp"
#include "harness/compare/naive.hpp"
#include "harness/generate/values.hpp"
#include "reference/attention.hpp"
#include "reference/linear_attention.hpp"

namespace sp {
namespace {

constexpr int kRuns = 3;

class NoisyStack {
 public:
  NoisyStack(const Problem& problem, const Inputs& inputs, std::uint64_t seed)
      : problem_(problem), inputs_(inputs), random_(seed) {}

  Outputs run() {
    const bool backward = !inputs_.d_out.absent();
    std::vector<HostTensor> queries{inputs_.q};
    Outputs last;
    for (std::int64_t l = 0; l < problem_.layer_count(); ++l) {
      last = layer(l, queries.back(), {});
      queries.push_back(stored(last.out));
    }
    Outputs result;
    result.out = last.out;
    if (!backward) return result;
    const Shape& s = problem_.shape;
    const std::int64_t L = problem_.layer_count();
    result.d_k = HostTensor(DType::kF64, {s.B, s.N, L * s.G, s.D});
    result.d_v = HostTensor(DType::kF64, {s.B, s.N, L * s.G, s.E});
    if (!inputs_.log_decay.absent()) result.d_log_decay = HostTensor(DType::kF64, {s.H});
    HostTensor d = inputs_.d_out;
    for (std::int64_t l = L - 1; l >= 0; --l) {
      const Outputs g = layer(l, queries[static_cast<std::size_t>(l)], d);
      place(result.d_k, g.d_k, l);
      place(result.d_v, g.d_v, l);
      add(result.d_log_decay, g.d_log_decay);
      result.d_q = g.d_q;
      d = stored(g.d_q);
    }
    return result;
  }

 private:
  HostTensor stored(const HostTensor& tensor) const {
    return tensor.cast(problem_.dtype).cast(DType::kF64);
  }
  // Every element moved by its limit, up or down.
  void move(HostTensor& tensor, const Limit& limit) {
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      const double size = limit.sizes.absent() ? 0 : limit.per_size * limit.sizes.at(i);
      const double by = limit.absolute + size;
      tensor.set(i, tensor.at(i) + (random_.below(2) == 0 ? by : -by));
    }
  }
  // Heads of layer l of a tensor [B, N, L G, size].
  HostTensor heads(const HostTensor& whole, std::int64_t l) const {
    const std::int64_t width = problem_.shape.G * whole.extent(3);
    HostTensor part(DType::kF64,
                    {whole.extent(0), whole.extent(1), problem_.shape.G, whole.extent(3)});
    for (std::int64_t i = 0; i < part.size(); ++i)
      part.set(i, whole.at((i / width * problem_.layer_count() + l) * width + i % width));
    return part;
  }
  void place(HostTensor& whole, const HostTensor& part, std::int64_t l) const {
    const std::int64_t width = problem_.shape.G * whole.extent(3);
    for (std::int64_t i = 0; i < part.size(); ++i)
      whole.set((i / width * problem_.layer_count() + l) * width + i % width, part.at(i));
  }
  static void add(HostTensor& sum, const HostTensor& more) {
    for (std::int64_t i = 0; i < more.size(); ++i) sum.set(i, sum.at(i) + more.at(i));
  }

  Outputs layer(std::int64_t l, const HostTensor& queries, const HostTensor& d_out) {
    const Problem problem = layer_of(problem_, l);
    Inputs inputs{queries, heads(inputs_.k, l), heads(inputs_.v, l), d_out};
    if (problem.module) inputs.log_decay = inputs_.log_decay;
    Outputs result = problem.module ? reference::linear_attention(problem, inputs)
                                    : reference::attention(problem, inputs);
    const Limits limits =
        problem.module
            ? linear_limits_for(problem, linear_sizes(problem, inputs, result), false)
            : limits_for(problem, inputs, result, naive_attention(problem, inputs), 1, false);
    move(result.out, limits.out);
    move(result.d_q, limits.d_q);
    move(result.d_k, limits.d_k);
    move(result.d_v, limits.d_v);
    move(result.d_log_decay, limits.d_log_decay);
    return result;
  }

  const Problem& problem_;
  const Inputs& inputs_;
  Stream random_;
};

void raise(HostTensor& most, const HostTensor& noisy, const HostTensor& exact) {
  if (exact.absent()) return;
  if (most.absent()) most = HostTensor(DType::kF64, {1});
  for (std::int64_t i = 0; i < exact.size(); ++i) {
    if (std::isinf(exact.at(i)) && noisy.at(i) == exact.at(i)) continue;
    const double change = std::fabs(noisy.at(i) - exact.at(i));
    if (!(change <= most.at(0))) most.set(0, change);  // NaN stays, and fails
  }
}

}  // namespace

Outputs stack_noise(const Problem& problem, const Inputs& inputs, const Outputs& exact) {
  Outputs most;
  for (int run = 0; run < kRuns; ++run) {
    const Outputs noisy = NoisyStack(problem, inputs, static_cast<std::uint64_t>(run)).run();
    raise(most.out, noisy.out, exact.out);
    raise(most.d_q, noisy.d_q, exact.d_q);
    raise(most.d_k, noisy.d_k, exact.d_k);
    raise(most.d_v, noisy.d_v, exact.d_v);
    raise(most.d_log_decay, noisy.d_log_decay, exact.d_log_decay);
  }
  return most;
}

}  // namespace sp
