// SPDX-License-Identifier: Apache-2.0
#include "reference/linear_window.hpp"

#include <algorithm>
#include <cstring>

#include "reference/attention.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {
namespace {

constexpr HostTensor Outputs::* kResults[] = {&Outputs::out, &Outputs::d_q, &Outputs::d_k,
                                              &Outputs::d_v};

Problem window_problem(const Problem& problem) {
  Problem window = problem;
  window.module.reset();
  window.epsilon = 0;
  window.scale = default_scale(problem.shape);
  return window;
}

// Tokens [begin, end) of x [B, N, ...].
HostTensor slice(const HostTensor& x, Index begin, Index end) {
  if (x.absent()) return {};
  std::vector<Index> shape = x.shape();
  const Index B = shape[0], N = shape[1];
  shape[1] = end - begin;
  HostTensor part(x.dtype(), shape);
  const auto row =
      static_cast<std::size_t>(B * N > 0 ? x.size() / (B * N) : 0) * size_of(x.dtype());
  const auto count = static_cast<std::size_t>(end - begin);
  for (Index b = 0; b < B; ++b)
    std::memcpy(part.data() + static_cast<std::size_t>(b) * count * row,
                x.data() + static_cast<std::size_t>(b * N + begin) * row, count * row);
  return part;
}

// sum [B, rows, ...] at row r += part [B, tokens, ...] at token t
void add_token(HostTensor& sum, Index r, const HostTensor& part, Index t) {
  if (sum.absent()) return;
  const Index B = sum.extent(0), size = sum.extent(2) * sum.extent(3);
  for (Index b = 0; b < B; ++b)
    add_scaled(sum.as<double>().data() + (b * sum.extent(1) + r) * size, 1,
               part.as<double>().data() + (b * part.extent(1) + t) * size, size);
}

}  // namespace

void add_window(const Problem& problem, const Inputs& inputs, Outputs& sum) {
  if (problem.mask.window == 0) return;
  const Outputs window = attention(window_problem(problem), inputs);
  for (const auto x : kResults)
    for (Index t = 0; t < problem.shape.N; ++t) add_token(sum.*x, t, window.*x, t);
}

void add_window_rows(const Problem& problem, const Inputs& inputs, std::span<const Index> tokens,
                     Outputs& sum) {
  const Index N = problem.shape.N, width = problem.mask.window;
  if (width == 0) return;
  for (Index r = 0; r < std::ssize(tokens); ++r) {
    // Key t is seen by queries up to t + width - 1; query t sees keys from t - width + 1 on.
    const Index t = tokens.data()[r];
    const Index begin = std::max<Index>(0, t - width + 1), end = std::min(N, t + width);
    Problem near = window_problem(problem);
    near.shape.N = end - begin;
    near.mask.segment_ids.clear();
    if (!problem.mask.segment_ids.empty())
      for (Index b = 0; b < problem.shape.B; ++b)
        for (Index i = begin; i < end; ++i)
          near.mask.segment_ids.push_back(problem.mask.segment_ids.data()[b * N + i]);
    Inputs part;
    for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out})
      part.*x = slice(inputs.*x, begin, end);
    const Outputs window = attention(near, part);
    for (const auto x : kResults) add_token(sum.*x, r, window.*x, t - begin);
  }
}

}  // namespace sp::reference
