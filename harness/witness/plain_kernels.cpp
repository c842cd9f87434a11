// SPDX-License-Identifier: Apache-2.0
#include "harness/witness/plain_kernels.hpp"

#include <cmath>
#include <limits>

#include "harness/run/sees.hpp"

namespace sp {
namespace {

using std::int64_t;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double* row(const Tensor& x, int64_t i, int64_t b, int64_t h) {
  return x.as<double>() + i * x.stride(0) + b * x.stride(1) + h * x.stride(2);
}

double product(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += a[c] * b[c];
  return sum;
}

void add_scaled(double* into, double factor, const double* x, int64_t n) {
  for (int64_t c = 0; c < n; ++c) into[c] += factor * x[c];
}

// f(i, b, h, [j, g, score] for all visible keys) for every row of queries.
template <class F>
void for_each_row(const AttentionBlock& block, F&& f) {
  const int64_t group = block.k.extent(2) > 0 ? block.q.extent(2) / block.k.extent(2) : 1;
  for (int64_t i = 0; i < block.q.extent(0); ++i) {
    for (int64_t b = 0; b < block.q.extent(1); ++b) {
      for (int64_t h = 0; h < block.q.extent(2); ++h) {
        f(i, b, h, [&, i, b, h](auto&& visit) {
          for (int64_t j = 0; j < block.k.extent(0); ++j) {
            if (!sees(block.mask, b, block.q_tokens.position(i), block.k_tokens.position(j)))
              continue;
            visit(j, h / group,
                  block.scale * product(row(block.q, i, b, h), row(block.k, j, b, h / group),
                                        block.q.extent(3)));
          }
        });
      }
    }
  }
}

}  // namespace

void PlainKernels::do_attention(const AttentionBlock& block, const Partial& result) {
  const int64_t E = block.v.extent(3);
  for_each_row(block, [&](int64_t i, int64_t b, int64_t h, auto&& keys) {
    double highest = -kInfinity, sum = 0;
    keys([&](int64_t, int64_t, double score) { highest = std::fmax(highest, score); });
    double* out = row(result.out, i, b, h);
    std::fill_n(out, E, 0.0);
    keys([&](int64_t j, int64_t g, double score) {
      const double weight = std::exp(score - highest);
      sum += weight;
      add_scaled(out, weight, row(block.v, j, b, g), E);
    });
    for (int64_t e = 0; e < E && sum > 0; ++e) out[e] /= sum;
    *row(result.lse, i, b, h) = highest + std::log(sum);
  });
}

void PlainKernels::do_merge(const Partial& into, const Partial& from) {
  const int64_t E = into.out.extent(3);
  for (int64_t i = 0; i < into.out.extent(0); ++i) {
    for (int64_t b = 0; b < into.out.extent(1); ++b) {
      for (int64_t h = 0; h < into.out.extent(2); ++h) {
        double &a = *row(into.lse, i, b, h), z = *row(from.lse, i, b, h);
        if (z == -kInfinity) continue;
        const double highest = std::fmax(a, z);
        const double merged = highest + std::log(std::exp(a - highest) + std::exp(z - highest));
        double* out = row(into.out, i, b, h);
        for (int64_t e = 0; e < E; ++e) out[e] *= std::exp(a - merged);
        add_scaled(out, std::exp(z - merged), row(from.out, i, b, h), E);
        a = merged;
      }
    }
  }
}

void PlainKernels::do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) {
  for (int64_t i = 0; i < out.extent(0); ++i) {
    for (int64_t b = 0; b < out.extent(1); ++b) {
      for (int64_t h = 0; h < out.extent(2); ++h)
        *row(delta, i, b, h) = product(row(d_out, i, b, h), row(out, i, b, h), out.extent(3));
    }
  }
}

void PlainKernels::do_attention_backward(const AttentionBlock& block, const Tensor& d_out,
                                         const Tensor& lse, const Tensor& delta,
                                         const AttentionGradients& gradients) {
  const int64_t D = block.q.extent(3), E = block.v.extent(3);
  for_each_row(block, [&](int64_t i, int64_t b, int64_t h, auto&& keys) {
    keys([&](int64_t j, int64_t g, double score) {
      const double weight = std::exp(score - *row(lse, i, b, h));
      const double* cotangent = row(d_out, i, b, h);
      const double d_weight = product(cotangent, row(block.v, j, b, g), E);
      const double d_score = block.scale * weight * (d_weight - *row(delta, i, b, h));
      add_scaled(row(gradients.d_v, j, b, g), weight, cotangent, E);
      add_scaled(row(gradients.d_q, i, b, h), d_score, row(block.k, j, b, g), D);
      add_scaled(row(gradients.d_k, j, b, g), d_score, row(block.q, i, b, h), D);
    });
  });
}

}  // namespace sp
