// Tables of decays. Sums of log decays are formed in double; exponentials of sums round once.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/linear_decay.hpp"

#include <algorithm>
#include <cmath>

#include "optimized/kernels/cpu/linear_tile.hpp"
#include "optimized/kernels/cpu/tile.hpp"

namespace sp {

template <class T>
ChunkDecay<T>::ChunkDecay(Scratch& scratch, const LinearTerms& terms, std::int64_t D,
                          std::int64_t chunk)
    : terms_(terms), kind_(decay_of(terms.module)), D_(D), chunk_(chunk), stride_(tile::padded(D)) {
  if (kind_ == Decay::kPerHead) {
    powers_.resize(static_cast<std::size_t>(chunk + 1));
    reversed_ = scratch.get<T>(Slot::kReversed, tile::padded(chunk) + tile::kPad);
    std::fill(reversed_, reversed_ + tile::padded(chunk) + tile::kPad, T{0});
    total_.resize(1);
  }
  if (kind_ == Decay::kPerChannel) {
    const std::int64_t blocks = (chunk + tile::kGatedRows - 1) / tile::kGatedRows;
    gates_ = scratch.get<T>(Slot::kGates, chunk * stride_);
    query_decay_ = scratch.get<T>(Slot::kQueryDecay, chunk * stride_);
    key_decay_ = scratch.get<T>(Slot::kKeyDecay, chunk * stride_);
    until_block_ = scratch.get<T>(Slot::kBlockDecay, 2 * blocks * stride_);
    after_block_ = until_block_ + blocks * stride_;
    total_.resize(static_cast<std::size_t>(D));
  }
}

template <class T>
void ChunkDecay<T>::select(std::int64_t b, std::int64_t h) {
  if (kind_ == Decay::kPerChannel) gates_source_ = head_of(terms_.log_decay, b, h);
  if (kind_ != Decay::kPerHead) return;
  log_decay_ = static_cast<double>(*head_of(terms_.log_decay, 0, h).template row<T>(0));
  for (std::int64_t m = 0; m <= chunk_; ++m) {
    powers_[static_cast<std::size_t>(m)] =
        static_cast<T>(std::exp(static_cast<double>(m) * log_decay_));
  }
  std::copy_n(powers_.rbegin() + 1, chunk_, reversed_);
}

template <class T>
void ChunkDecay<T>::load(std::int64_t begin, std::int64_t n) {
  n_ = n;
  if (kind_ == Decay::kPerHead) total_[0] = static_cast<double>(n) * log_decay_;
  if (kind_ == Decay::kPerChannel) load_gates(begin, n);
}

template <class T>
void ChunkDecay<T>::load_gates(std::int64_t begin, std::int64_t n) {
  pack(gates_, stride_, gates_source_.row_window(begin, n));
  std::fill(total_.begin(), total_.end(), 0.0);
  for (std::int64_t j = 0; j < n; ++j) {
    const T* row = gates_ + j * stride_;
    for (std::int64_t c = 0; c < D_; ++c)
      total_[static_cast<std::size_t>(c)] += static_cast<double>(row[c]);
    tile::exp_row(gates_ + j * stride_, D_, T{0});
  }
  const auto multiply_rows = [&](T* target, const T* x, const T* y) {
    tile::product_row(target, x, y, T{1}, D_);
  };
  T* until = until_block_;
  std::fill(until, until + stride_, T{1});
  for (std::int64_t first = 0; first < n; first += tile::kGatedRows) {
    const std::int64_t last = std::min(first + tile::kGatedRows, n) - 1;
    T *queries = query_decay_ + first * stride_, *keys = key_decay_ + last * stride_;
    std::copy_n(gates_ + first * stride_, stride_, queries);
    std::fill(keys, keys + stride_, T{1});
    for (std::int64_t j = first; j < last; ++j, queries += stride_) {
      multiply_rows(queries + stride_, queries, gates_ + (j + 1) * stride_);
    }
    for (std::int64_t i = last; i > first; --i, keys -= stride_) {
      multiply_rows(keys - stride_, keys, gates_ + i * stride_);
    }
    if (last + 1 < n) multiply_rows(until + stride_, until, queries);
    until += stride_;
  }
  const std::int64_t blocks = (n + tile::kGatedRows - 1) / tile::kGatedRows;
  for (std::int64_t block = blocks - 1; block >= 0; --block) {
    T* after = after_block_ + block * stride_;
    if (block == blocks - 1) {
      std::fill(after, after + stride_, T{1});
    } else {
      multiply_rows(after, after + stride_, this->block((block + 1) * tile::kGatedRows).whole);
    }
  }
}

template <class T>
typename ChunkDecay<T>::Block ChunkDecay<T>::block(std::int64_t begin) const {
  const std::int64_t last = std::min(begin + tile::kGatedRows, n_) - 1;
  return {gates_ + begin * stride_, query_decay_ + begin * stride_, key_decay_ + begin * stride_,
          query_decay_ + last * stride_};
}

template <class T>
void ChunkDecay<T>::fade(T* rows, const T* inside, const T* outside) const {
  for (std::int64_t j = 0; j < n_; ++j) {
    T* row = rows + j * stride_;
    tile::product_row(row, row, inside + j * stride_, T{1}, D_);
    tile::product_row(row, row, outside + j / tile::kGatedRows * stride_, T{1}, D_);
  }
}

template <class T>
void ChunkDecay<T>::fade_queries(T* rows) const {
  if (per_channel()) return fade(rows, query_decay_, until_block_);
  for (std::int64_t j = 0; j < n_ && !none(); ++j) {
    tile::scale(rows + j * stride_, D_, powers_[static_cast<std::size_t>(j + 1)]);
  }
}

template <class T>
void ChunkDecay<T>::fade_keys(T* rows) const {
  if (per_channel()) return fade(rows, key_decay_, after_block_);
  for (std::int64_t i = 0; i < n_ && !none(); ++i) {
    tile::scale(rows + i * stride_, D_, powers_[static_cast<std::size_t>(n_ - 1 - i)]);
  }
}

// A state lives through many sub-chunks. Multiplied by rounded factors close to 1 it would drift:
// their errors all have one sign. 1 - factor has no such error.
template <class T>
void ChunkDecay<T>::fade_state(T* state, std::int64_t W) const {
  if (none()) return;
  const std::int64_t stride = tile::padded(W);
  for (std::int64_t f = 0; f < D_; ++f) {
    const double total = total_[per_channel() ? static_cast<std::size_t>(f) : 0];
    if (total > -0.5) {
      tile::shrink_row(state + f * stride, W, static_cast<T>(-std::expm1(total)));
    } else {
      tile::scale(state + f * stride, W, static_cast<T>(std::exp(total)));
    }
  }
}

template <class T>
void ChunkDecay<T>::fade_scores(T* s, std::int64_t stride) const {
  if (kind_ != Decay::kPerHead) return;
  for (std::int64_t j = 0; j < n_; ++j) {
    T* row = s + j * stride;
    tile::product_row(row, row, reversed_ + chunk_ - 1 - j, T{1}, j + 1);
  }
}

template class ChunkDecay<float>;
template class ChunkDecay<double>;

}  // namespace sp
