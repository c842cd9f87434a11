// The quadratic part with one decay per token and channel, in blocks of tile::kGatedRows tokens.
//
// Between two blocks the decay is split where the later one begins, so that neither factor exceeds
// 1; keys (or queries) of all blocks that wait for later (or earlier) ones are kept faded up to that
// place. Inside a block it is built up token by token.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cpu/linear_intra.hpp"
#include "optimized/kernels/cpu/linear_pieces.hpp"
#include "optimized/kernels/cpu/linear_tile.hpp"

namespace sp {
namespace {

template <class T>
void multiply_rows(T* target, const T* x, const T* y, std::int64_t stride, std::int64_t rows,
                   std::int64_t columns) {
  for (std::int64_t i = 0; i < rows; ++i) {
    tile::product_row(target + i * stride, x + i * stride, y + i * stride, T{1}, columns);
  }
}

template <class T>
void add_rows(T* target, const T* x, std::int64_t stride, std::int64_t rows) {
  for (std::int64_t i = 0; i < rows * stride; ++i) target[i] += x[i];
}

}  // namespace

template <class T>
void IntraChunk<T>::form_gated_weights(const VectorTile<T>& q, const VectorTile<T>& k) {
  for (std::int64_t begin = 0; begin < n_; begin += tile::kGatedRows) {
    const std::int64_t rows = std::min(tile::kGatedRows, n_ - begin);
    const auto block = decay_.block(begin);
    T* s = weights_ + begin * stride_;
    multiply_rows(block_, q.rows + begin * row_stride_, block.query_decay, row_stride_, rows, D_);
    multiply<T>(s, stride_, by_rows<T>(block_, row_stride_), faded_, stride_, {rows, begin, D_},
                false);
    tile::gated_scores({.scores = s + begin,
                        .score_stride = stride_,
                        .q = q.rows + begin * row_stride_,
                        .q_stride = row_stride_,
                        .k_transposed = k.columns + begin,
                        .k_stride = stride_,
                        .gates = block.gates,
                        .gate_stride = row_stride_,
                        .rows = rows,
                        .depth = D_});
    const std::int64_t end = begin + tile::kGatedRows;
    for (std::int64_t j = 0; j < rows && end < stride_; ++j) {
      std::fill(s + j * stride_ + end, s + (j + 1) * stride_, T{0});
    }
    if (end >= n_) return;
    for (std::int64_t c = 0; c < D_; ++c) tile::scale(faded_ + c * stride_, begin, block.whole[c]);
    multiply_rows(block_, k.rows + begin * row_stride_, block.key_decay, row_stride_, rows, D_);
    tile::transpose(tile::Transposition<T>{faded_ + begin, stride_, block_, row_stride_, rows, D_});
  }
}

template <class T>
void IntraChunk<T>::add_gated_d_q(T* d_q, const VectorTile<T>& k) {
  T* inside = block_ + tile::kGatedRows * row_stride_;
  for (std::int64_t begin = 0; begin < n_; begin += tile::kGatedRows) {
    const std::int64_t rows = std::min(tile::kGatedRows, n_ - begin);
    const auto block = decay_.block(begin);
    const T* s = gradients_ + begin * stride_;
    const T* keys = k.rows + begin * row_stride_;
    multiply<T>(block_, row_stride_, by_rows<T>(s, stride_), faded_, row_stride_, {rows, D_, begin},
                false);
    multiply_rows(block_, block_, block.query_decay, row_stride_, rows, D_);
    tile::gated_sums(tile::GatedSums<T>{.out = inside,
                                        .out_stride = row_stride_,
                                        .weights = s + begin,
                                        .weight_row_stride = stride_,
                                        .weight_column_stride = 1,
                                        .x = keys,
                                        .x_stride = row_stride_,
                                        .gates = block.gates,
                                        .gate_stride = row_stride_,
                                        .rows = rows,
                                        .depth = D_});
    add_rows(d_q + begin * row_stride_, block_, row_stride_, rows);
    add_rows(d_q + begin * row_stride_, inside, row_stride_, rows);
    for (std::int64_t i = 0; i < begin; ++i) {
      T* row = faded_ + i * row_stride_;
      tile::product_row(row, row, block.whole, T{1}, D_);
    }
    multiply_rows(faded_ + begin * row_stride_, keys, block.key_decay, row_stride_, rows, D_);
  }
}

template <class T>
void IntraChunk<T>::add_gated_d_k(T* d_k, const VectorTile<T>& q) {
  T* inside = block_ + tile::kGatedRows * row_stride_;
  const std::int64_t blocks = (n_ + tile::kGatedRows - 1) / tile::kGatedRows;
  for (std::int64_t index = blocks - 1; index >= 0; --index) {
    const std::int64_t begin = index * tile::kGatedRows;
    const std::int64_t end = std::min(begin + tile::kGatedRows, n_);
    const std::int64_t rows = end - begin;
    const auto block = decay_.block(begin);
    const T* queries = q.rows + begin * row_stride_;
    const std::int64_t last = (rows - 1) * row_stride_;
    multiply<T>(block_, row_stride_, by_columns<T>(gradients_ + end * stride_ + begin, stride_),
                faded_ + end * row_stride_, row_stride_, {rows, D_, n_ - end}, false);
    multiply_rows(block_, block_, block.key_decay, row_stride_, rows, D_);
    tile::gated_sums(
        tile::GatedSums<T>{.out = inside + last,
                           .out_stride = -row_stride_,
                           .weights = gradients_ + (end - 1) * stride_ + end - 1,
                           .weight_row_stride = -1,
                           .weight_column_stride = -stride_,
                           .x = queries + last,
                           .x_stride = -row_stride_,
                           .gates = block.gates + last + row_stride_,  // of the token after
                           .gate_stride = -row_stride_,
                           .rows = rows,
                           .depth = D_});
    add_rows(d_k + begin * row_stride_, block_, row_stride_, rows);
    add_rows(d_k + begin * row_stride_, inside, row_stride_, rows);
    for (std::int64_t j = end; j < n_; ++j) {
      T* row = faded_ + j * row_stride_;
      tile::product_row(row, row, block.whole, T{1}, D_);
    }
    multiply_rows(faded_ + begin * row_stride_, queries, block.query_decay, row_stride_, rows, D_);
  }
}

template void IntraChunk<float>::form_gated_weights(const VectorTile<float>&,
                                                    const VectorTile<float>&);
template void IntraChunk<double>::form_gated_weights(const VectorTile<double>&,
                                                     const VectorTile<double>&);
template void IntraChunk<float>::add_gated_d_q(float*, const VectorTile<float>&);
template void IntraChunk<double>::add_gated_d_q(double*, const VectorTile<double>&);
template void IntraChunk<float>::add_gated_d_k(float*, const VectorTile<float>&);
template void IntraChunk<double>::add_gated_d_k(double*, const VectorTile<double>&);

}  // namespace sp
