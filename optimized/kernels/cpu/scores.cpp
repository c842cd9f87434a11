// Score rows of Ring Self-Attention: complete rows of probabilities, held in tensors.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/product.hpp"
#include "optimized/kernels/cpu/tile.hpp"
#include "optimized/kernels/cpu/token_tiles.hpp"

namespace sp {
namespace {

// Calls f(b, h, g) for every query head h and the head g that it shares with its group.
template <class F>
void for_each_head(const Tensor& queries, std::int64_t shared_heads, F f) {
  SP_CHECK(shared_heads > 0 && queries.extent(2) % shared_heads == 0,
           "query heads are no multiple of key heads");
  const std::int64_t group = queries.extent(2) / shared_heads;
  for (std::int64_t b = 0; b < queries.extent(1); ++b) {
    for (std::int64_t h = 0; h < queries.extent(2); ++h) f(b, h, h / group);
  }
}

// -inf for every key that the query does not see.
template <class T>
void hide_row(T* row, std::int64_t query, const Tokens& k_tokens, const SequenceMask& mask) {
  for (const Run& run : k_tokens.runs()) {
    mask.hide(row, query, run);
    row += run.count;
  }
}

// row becomes its softmax in place, or 0 where nothing is visible; returns its log-sum-exp.
template <class T>
T softmax_row(T* row, std::int64_t count) {
  const T largest = tile::row_max(row, count);
  const T shift = largest == -std::numeric_limits<T>::infinity() ? T{0} : largest;
  const T sum = tile::exp_row(row, count, shift);
  if (sum == 0) return -std::numeric_limits<T>::infinity();
  for (std::int64_t j = 0; j < count; ++j) row[j] /= sum;
  return shift + std::log(sum);
}

// Rows are worked on in padded scratch.
template <class T>
void softmax_rows(Scratch& scratch, const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                  const Tokens& k_tokens, const MaskTerms* mask) {
  const std::int64_t count = scores.extent(3);
  T* row = scratch.get<T>(Slot::kScores, tile::padded(count));
  const MaskTerms nothing{};
  for_each_head(scores, scores.extent(2), [&](std::int64_t b, std::int64_t h, std::int64_t) {
    const SequenceMask sequence(mask == nullptr ? nothing : *mask, b);
    const Matrix head = head_of(scores, b, h);
    const Matrix head_lse = head_of(lse, b, h);
    std::int64_t i = 0;
    const auto take_row = [&](const std::int64_t* query) {
      std::copy_n(head.row<T>(i), count, row);
      if (query != nullptr) hide_row(row, *query, k_tokens, sequence);
      *head_lse.row<T>(i) = softmax_row(row, count);
      std::copy_n(row, count, head.row<T>(i));
      ++i;
    };
    if (mask == nullptr) {
      while (i < head.rows) take_row(nullptr);
      return;
    }
    for (const Run& run : q_tokens.runs()) {
      for (std::int64_t j = 0; j < run.count; ++j) {
        const std::int64_t query = run.position(j);
        take_row(&query);
      }
    }
  });
}

template <class T>
void softmax_backward_rows(Scratch& scratch, const Tensor& d_probabilities,
                           const Tensor& probabilities, T scale) {
  const std::int64_t count = probabilities.extent(3);
  T* p = scratch.get<T>(Slot::kScores, tile::padded(count));
  T* dp = scratch.get<T>(Slot::kScoreGradients, tile::padded(count));
  const auto head_rows = [&](std::int64_t b, std::int64_t h, std::int64_t) {
    const Matrix head = head_of(probabilities, b, h);
    const Matrix d_head = head_of(d_probabilities, b, h);
    for (std::int64_t i = 0; i < head.rows; ++i) {
      std::copy_n(head.row<T>(i), count, p);
      std::copy_n(d_head.row<T>(i), count, dp);
      tile::softmax_gradient(dp, p, count, tile::weighted_sum(p, dp, count), scale);
      std::copy_n(dp, count, d_head.row<T>(i));
    }
  };
  for_each_head(probabilities, probabilities.extent(2), head_rows);
}

}  // namespace

void CpuKernels::do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) {
  for_each_head(a, b.extent(2), [&](std::int64_t batch, std::int64_t h, std::int64_t g) {
    multiply(scratch_, head_of(scores, batch, h), {head_of(a, batch, h)},
             transposed(head_of(b, batch, g)), scale);
  });
}

void CpuKernels::do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                                   const Tokens& k_tokens, const MaskTerms* mask) {
  SP_CHECK(scores.dtype() == accumulator_of(scores.dtype()) && lse.dtype() == scores.dtype(),
           "score rows and their log-sum-exp hold the accumulator type");
  visit_accumulator(scores.dtype(), [&]<class T>() {
    softmax_rows<T>(scratch_, scores, lse, q_tokens, k_tokens, mask);
  });
}

void CpuKernels::do_scores_softmax_backward(const Tensor& d_probabilities,
                                            const Tensor& probabilities, double scale) {
  SP_CHECK(probabilities.dtype() == accumulator_of(probabilities.dtype()) &&
               d_probabilities.dtype() == probabilities.dtype(),
           "probabilities and their gradients hold the accumulator type");
  visit_accumulator(probabilities.dtype(), [&]<class T>() {
    softmax_backward_rows(scratch_, d_probabilities, probabilities, static_cast<T>(scale));
  });
}

void CpuKernels::do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) {
  for_each_head(s, x.extent(2), [&](std::int64_t b, std::int64_t h, std::int64_t g) {
    multiply_add(scratch_, head_of(out, b, h), {head_of(s, b, h)}, {head_of(x, b, g)});
  });
}

void CpuKernels::do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) {
  for_each_head(s, out.extent(2), [&](std::int64_t b, std::int64_t h, std::int64_t g) {
    multiply_add(scratch_, head_of(out, b, g), transposed(head_of(s, b, h)), {head_of(x, b, h)});
  });
}

}  // namespace sp
