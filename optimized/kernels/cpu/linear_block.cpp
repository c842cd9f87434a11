// The left product: every query against every key of a block, tile by tile, for comparison with the
// chunked form.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "optimized/kernels/cpu/attention_tiles.hpp"
#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/linear_pieces.hpp"
#include "optimized/kernels/cpu/linear_tile.hpp"

namespace sp {
namespace {

// The number of the document at each position: equal ids with another id between are two documents.
class Documents {
 public:
  explicit Documents(const Tensor& segments) {
    if (!segments.defined()) return;
    SP_CHECK(segments.dtype() == DType::kI32, "segment ids are i32");
    const std::int64_t B = segments.extent(0), N = segments.extent(1);
    numbers_.resize(static_cast<std::size_t>(B * N));
    for (std::int64_t b = 0; b < B; ++b) {
      const std::int32_t* ids = segments.as<std::int32_t>() + b * segments.stride(0);
      std::int32_t number = 0;
      for (std::int64_t i = 0; i < N; ++i) {
        if (i > 0 && ids[i * segments.stride(1)] != ids[(i - 1) * segments.stride(1)]) ++number;
        numbers_[static_cast<std::size_t>(b * N + i)] = number;
      }
    }
    auto storage = std::make_shared<Storage>();
    storage->data = reinterpret_cast<std::byte*>(numbers_.data());
    storage->bytes = B * N * static_cast<std::int64_t>(sizeof(std::int32_t));
    storage->name = "documents";
    table_ = Tensor(std::move(storage), DType::kI32, {B, N, 1, 1});
  }
  const Tensor& table() const { return table_; }

 private:
  std::vector<std::int32_t> numbers_;  // [B, N]
  Tensor table_;
};

template <class T>
class LeftProduct {
 public:
  LeftProduct(Scratch& scratch, const AttentionBlock& block, const LinearTerms& terms)
      : block_(block),
        terms_(terms),
        documents_(block.mask.segments.defined() ? block.mask.segments : terms.segments),
        mask_{block.mask.band, documents_.table()},
        q_tiles_(tiles_of(block.q_tokens)),
        k_tiles_(tiles_of(block.k_tokens)),
        D_(block.q.extent(3)),
        E_(block.v.extent(3)),
        q_stride_(tile::padded(D_)),
        v_stride_(tile::padded(E_)),
        q_(scratch.get<T>(Slot::kQuery, kTileRows * q_stride_)),
        k_(scratch.get<T>(Slot::kKey, kTileRows * q_stride_)),
        k_columns_(scratch.get<T>(Slot::kKeyTransposed, D_ * kScoreStride)),
        v_(scratch.get<T>(Slot::kValue, kTileRows * v_stride_)),
        v_columns_(scratch.get<T>(Slot::kValueTransposed, E_ * kScoreStride)),
        d_out_(scratch.get<T>(Slot::kGradient, kTileRows * v_stride_)),
        weights_(scratch.get<T>(Slot::kScores, kTileRows * kScoreStride)),
        gradients_(scratch.get<T>(Slot::kScoreGradients, kTileRows * kScoreStride)),
        decays_(scratch.get<T>(Slot::kDecayed, kTileRows * kScoreStride)),
        sums_(scratch.get<T>(Slot::kOut, kTileRows * std::max(q_stride_, v_stride_))),
        d_k_(scratch.get<T>(Slot::kKeyGradient, kTileRows * q_stride_)),
        d_v_(scratch.get<T>(Slot::kValueGradient, kTileRows * v_stride_)) {}

  void forward(const Tensor& sums) {
    for_each_head([&](const SequenceMask& mask, std::int64_t b, std::int64_t h, std::int64_t g) {
      for (const TokenTile& queries : q_tiles_) {
        pack(q_, q_stride_, rows(block_.q, b, h, queries));
        std::fill(sums_, sums_ + kTileRows * v_stride_, T{0});
        for (const TokenTile& keys : k_tiles_) {
          const Visibility visibility = mask.classify(queries, keys);
          if (visibility == Visibility::kEmpty) continue;
          load_keys(keys, b, g);
          pack(v_, v_stride_, rows(block_.v, b, g, keys));
          form_decays(queries, keys, mask, visibility, h);
          form_weights(queries, keys);
          multiply<T>(sums_, v_stride_, by_rows<T>(weights_, kScoreStride), v_, v_stride_,
                      {queries.count(), E_, keys.count()}, true);
        }
        store_sum(rows(sums, b, h, queries), sums_, v_stride_, static_cast<T>(block_.scale));
      }
    });
  }

  void backward(const Tensor& d_out, const AttentionGradients& gradients,
                const Tensor& d_log_decay) {
    for_each_head([&](const SequenceMask& mask, std::int64_t b, std::int64_t h, std::int64_t g) {
      d_decay_ = 0;
      for (const TokenTile& keys : k_tiles_) {
        load_keys(keys, b, g);
        pack(v_, v_stride_, rows(block_.v, b, g, keys));
        tile::transpose(
            tile::Transposition<T>{v_columns_, kScoreStride, v_, v_stride_, keys.count(), E_});
        std::fill(d_k_, d_k_ + keys.count() * q_stride_, T{0});
        std::fill(d_v_, d_v_ + keys.count() * v_stride_, T{0});
        for (const TokenTile& queries : q_tiles_) {
          const Visibility visibility = mask.classify(queries, keys);
          if (visibility == Visibility::kEmpty) continue;
          pack(q_, q_stride_, rows(block_.q, b, h, queries));
          pack(d_out_, v_stride_, rows(d_out, b, h, queries));
          tile::scale(d_out_, queries.count() * v_stride_, static_cast<T>(block_.scale));
          form_decays(queries, keys, mask, visibility, h);
          form_weights(queries, keys);
          form_gradients(queries, keys);
          add_gradients(queries, keys, rows(gradients.d_q, b, h, queries));
        }
        store_sum(rows(gradients.d_k, b, g, keys), d_k_, q_stride_);
        store_sum(rows(gradients.d_v, b, g, keys), d_v_, v_stride_);
      }
      if (!decays()) return;
      T& sum = *head_of(d_log_decay, 0, h).template row<T>(0);
      sum = static_cast<T>(static_cast<double>(sum) + d_decay_);
    });
  }

 private:
  static Matrix rows(const Tensor& tensor, std::int64_t b, std::int64_t h,
                     const TokenTile& tokens) {
    return head_of(tensor, b, h).row_window(tokens.begin, tokens.count());
  }
  bool decays() const { return decay_of(terms_.module) == Decay::kPerHead; }

  template <class F>
  void for_each_head(F f) {
    const std::int64_t H = block_.q.extent(2), group = H / block_.k.extent(2);
    for (std::int64_t b = 0; b < block_.q.extent(1); ++b) {
      const SequenceMask mask(mask_, b);
      for (std::int64_t h = 0; h < H; ++h) f(mask, b, h, h / group);
    }
  }

  void load_keys(const TokenTile& keys, std::int64_t b, std::int64_t g) {
    pack(k_, q_stride_, rows(block_.k, b, g, keys));
    tile::transpose(
        tile::Transposition<T>{k_columns_, kScoreStride, k_, q_stride_, keys.count(), D_});
  }

  static std::int64_t distance(const Run& queries, std::int64_t i, const Run& keys,
                               std::int64_t j) {
    return std::abs(queries.position(i) - keys.position(j));
  }

  // exp(log_decay |i - j|), or 0 where the query does not see the key.
  void form_decays(const TokenTile& queries, const TokenTile& keys, const SequenceMask& mask,
                   Visibility visibility, std::int64_t h) {
    const Run &q = queries.run, &k = keys.run;
    const double log_decay =
        decays() ? static_cast<double>(*head_of(terms_.log_decay, 0, h).template row<T>(0)) : 0;
    const auto decay = [&](std::int64_t i, std::int64_t j) {
      return static_cast<T>(std::exp(log_decay * static_cast<double>(distance(q, i, k, j))));
    };
    for (std::int64_t i = 0; i < q.count; ++i) {
      T* row = decays_ + i * kScoreStride;
      if (log_decay == 0) {
        std::fill(row, row + k.count, T{1});
      } else if (i > 0 && q.stride == k.stride) {  // shifted by one
        row[0] = decay(i, 0);
        std::copy_n(row - kScoreStride, k.count - 1, row + 1);
      } else {
        for (std::int64_t j = 0; j < k.count; ++j) row[j] = decay(i, j);
      }
    }
    if (visibility != Visibility::kPartial) return;
    for (std::int64_t i = 0; i < q.count; ++i) {
      for (std::int64_t j = 0; j < k.count; ++j) {
        if (!mask.sees(q.position(i), k.position(j))) decays_[i * kScoreStride + j] = 0;
      }
    }
  }

  void form_weights(const TokenTile& queries, const TokenTile& keys) {
    multiply<T>(weights_, kScoreStride, by_rows<T>(q_, q_stride_), k_columns_, kScoreStride,
                {queries.count(), keys.count(), D_}, false);
    fade(weights_, queries, keys);
  }

  void fade(T* s, const TokenTile& queries, const TokenTile& keys) const {
    for (std::int64_t i = 0; i < queries.count(); ++i) {
      T* row = s + i * kScoreStride;
      tile::product_row(row, row, decays_ + i * kScoreStride, T{1}, keys.count());
    }
  }

  // From those of the scores; their products with the weights are the decay's share.
  void form_gradients(const TokenTile& queries, const TokenTile& keys) {
    multiply<T>(gradients_, kScoreStride, by_rows<T>(d_out_, v_stride_), v_columns_, kScoreStride,
                {queries.count(), keys.count(), E_}, false);
    for (std::int64_t i = 0; i < queries.count() && decays(); ++i) {
      const T *weights = weights_ + i * kScoreStride, *gradients = gradients_ + i * kScoreStride;
      for (std::int64_t j = 0; j < keys.count(); ++j) {
        d_decay_ += static_cast<double>(distance(queries.run, i, keys.run, j)) *
                    static_cast<double>(weights[j]) * static_cast<double>(gradients[j]);
      }
    }
    fade(gradients_, queries, keys);
  }

  void add_gradients(const TokenTile& queries, const TokenTile& keys, const Matrix& d_q) {
    multiply<T>(d_v_, v_stride_, by_columns<T>(weights_, kScoreStride), d_out_, v_stride_,
                {keys.count(), E_, queries.count()}, true);
    multiply<T>(d_k_, q_stride_, by_columns<T>(gradients_, kScoreStride), q_, q_stride_,
                {keys.count(), D_, queries.count()}, true);
    multiply<T>(sums_, q_stride_, by_rows<T>(gradients_, kScoreStride), k_, q_stride_,
                {queries.count(), D_, keys.count()}, false);
    store_sum(d_q, sums_, q_stride_);
  }

  const AttentionBlock& block_;
  const LinearTerms& terms_;
  const Documents documents_;
  const MaskTerms mask_;
  const std::vector<TokenTile> q_tiles_, k_tiles_;
  const std::int64_t D_, E_, q_stride_, v_stride_;
  double d_decay_ = 0;  // of the head in work
  T* q_;                // [queries, D]
  T* k_;                // [keys, D]
  T* k_columns_;        // [D, keys]
  T* v_;                // [keys, E]
  T* v_columns_;        // [E, keys]
  T* d_out_;            // [queries, E]
  T* weights_;          // [queries, keys]
  T* gradients_;        // [queries, keys]
  T* decays_;           // [queries, keys]
  T* sums_;             // [queries, D or E]
  T* d_k_;              // [keys, D]
  T* d_v_;              // [keys, E]
};

}  // namespace

void CpuKernels::do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                                 const Tensor& sums) {
  visit_accumulator(block.q.dtype(),
                    [&]<class T>() { LeftProduct<T>(scratch_, block, terms).forward(sums); });
}

void CpuKernels::do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                          const Tensor& d_out, const AttentionGradients& gradients,
                                          const Tensor& d_log_decay) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    LeftProduct<T>(scratch_, block, terms).backward(d_out, gradients, d_log_decay);
  });
}

}  // namespace sp
