// Attention backward: key tiles outside, query tiles inside, probabilities recomputed from the
// log-sum-exp (FlashAttention-2, arXiv:2307.08691, algorithm 2).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cpu/attention_tiles.hpp"
#include "optimized/kernels/cpu/cpu_kernels.hpp"

namespace sp {
namespace {

template <class T>
class BackwardPass {
 public:
  BackwardPass(Scratch& scratch, const AttentionBlock& block, const Tensor& d_out,
               const Tensor& lse, const Tensor& delta, const AttentionGradients& gradients)
      : block_(block),
        d_out_(d_out),
        lse_(lse),
        delta_(delta),
        gradients_(gradients),
        q_tiles_(tiles_of(block.q_tokens)),
        depth_(block.q.extent(3)),
        width_(block.v.extent(3)),
        q_stride_(tile::padded(depth_)),
        v_stride_(tile::padded(width_)),
        q_(scratch.get<T>(Slot::kQuery, kTileRows * q_stride_)),
        k_(scratch.get<T>(Slot::kKey, kTileRows * q_stride_)),
        k_transposed_(scratch.get<T>(Slot::kKeyTransposed, depth_ * kScoreStride)),
        v_transposed_(scratch.get<T>(Slot::kValue, width_ * kScoreStride)),
        d_o_(scratch.get<T>(Slot::kGradient, kTileRows * v_stride_)),
        p_(scratch.get<T>(Slot::kScores, kTileRows * kScoreStride)),
        d_s_(scratch.get<T>(Slot::kScoreGradients, kTileRows * kScoreStride)),
        d_q_(scratch.get<T>(Slot::kOut, kTileRows * q_stride_)),
        d_k_(scratch.get<T>(Slot::kKeyGradient, kTileRows * q_stride_)),
        d_v_(scratch.get<T>(Slot::kValueGradient, kTileRows * v_stride_)) {}

  void run() {
    const std::vector<TokenTile> k_tiles = tiles_of(block_.k_tokens);
    for (std::int64_t b = 0; b < block_.q.extent(1); ++b) {
      const SequenceMask mask(block_.mask, b);
      for (std::int64_t g = 0; g < block_.k.extent(2); ++g) {
        for (const TokenTile& keys : k_tiles) run_keys(keys, mask, b, g);
      }
    }
  }

 private:
  static Matrix rows_of(const Tensor& tensor, std::int64_t b, std::int64_t head,
                        const TokenTile& tokens) {
    return head_of(tensor, b, head).row_window(tokens.begin, tokens.count());
  }

  void run_keys(const TokenTile& keys, const SequenceMask& mask, std::int64_t b, std::int64_t g) {
    const std::int64_t group = block_.q.extent(2) / block_.k.extent(2);
    bool packed = false;
    for (const TokenTile& queries : q_tiles_) {
      const Visibility visibility = mask.classify(queries, keys);
      if (visibility == Visibility::kEmpty) continue;
      if (!packed) load_keys(keys, b, g);
      packed = true;
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
        load_queries(queries, b, h);
        differentiate_scores(queries, keys, mask, visibility, b, h);
        add_gradients(queries, keys, b, h);
      }
    }
    if (!packed) return;
    store_sum(rows_of(gradients_.d_k, b, g, keys), d_k_, q_stride_);
    store_sum(rows_of(gradients_.d_v, b, g, keys), d_v_, v_stride_);
  }

  void load_keys(const TokenTile& keys, std::int64_t b, std::int64_t g) {
    pack(k_, q_stride_, rows_of(block_.k, b, g, keys));
    pack_transposed(k_transposed_, kScoreStride, rows_of(block_.k, b, g, keys));
    pack_transposed(v_transposed_, kScoreStride, rows_of(block_.v, b, g, keys));
    std::fill(d_k_, d_k_ + keys.count() * q_stride_, T{0});
    std::fill(d_v_, d_v_ + keys.count() * v_stride_, T{0});
  }

  void load_queries(const TokenTile& queries, std::int64_t b, std::int64_t h) {
    pack(q_, q_stride_, rows_of(block_.q, b, h, queries));
    pack(d_o_, v_stride_, rows_of(d_out_, b, h, queries));
  }

  // p = exp(scale q k - lse) and ds = scale p (dp - delta), with dp = d_out v.
  void differentiate_scores(const TokenTile& queries, const TokenTile& keys,
                            const SequenceMask& mask, Visibility visibility, std::int64_t b,
                            std::int64_t h) {
    const T scale = static_cast<T>(block_.scale);
    masked_scores(p_, q_, k_transposed_, depth_, scale, queries, keys, mask, visibility);
    tile::multiply(tile::Product<T>{.c = d_s_,
                                    .c_stride = kScoreStride,
                                    .a = d_o_,
                                    .a_row_stride = v_stride_,
                                    .a_column_stride = 1,
                                    .b = v_transposed_,
                                    .b_stride = kScoreStride,
                                    .rows = queries.count(),
                                    .columns = keys.count(),
                                    .depth = width_,
                                    .accumulate = false});
    const Matrix lse = rows_of(lse_, b, h, queries);
    const Matrix delta = rows_of(delta_, b, h, queries);
    for (std::int64_t i = 0; i < queries.count(); ++i) {
      T* p = p_ + i * kScoreStride;
      if (*lse.row<T>(i) == -std::numeric_limits<T>::infinity()) {
        std::fill(p, p + kScoreStride, T{0});  // this query sees no key at all
      } else {
        tile::exp_row(p, keys.count(), *lse.row<T>(i));
      }
      tile::softmax_gradient(d_s_ + i * kScoreStride, p, keys.count(), *delta.row<T>(i), scale);
    }
  }

  // dv += pT d_out, dk += dsT q, dq += ds k.
  void add_gradients(const TokenTile& queries, const TokenTile& keys, std::int64_t b,
                     std::int64_t h) {
    const auto add_transposed = [&](T* c, const T* s, const T* x, std::int64_t stride,
                                    std::int64_t columns) {
      tile::multiply(tile::Product<T>{.c = c,
                                      .c_stride = stride,
                                      .a = s,
                                      .a_row_stride = 1,
                                      .a_column_stride = kScoreStride,
                                      .b = x,
                                      .b_stride = stride,
                                      .rows = keys.count(),
                                      .columns = columns,
                                      .depth = queries.count(),
                                      .accumulate = true});
    };
    add_transposed(d_v_, p_, d_o_, v_stride_, width_);
    add_transposed(d_k_, d_s_, q_, q_stride_, depth_);
    tile::multiply(tile::Product<T>{.c = d_q_,
                                    .c_stride = q_stride_,
                                    .a = d_s_,
                                    .a_row_stride = kScoreStride,
                                    .a_column_stride = 1,
                                    .b = k_,
                                    .b_stride = q_stride_,
                                    .rows = queries.count(),
                                    .columns = depth_,
                                    .depth = keys.count(),
                                    .accumulate = false});
    store_sum(rows_of(gradients_.d_q, b, h, queries), d_q_, q_stride_);
  }

  const AttentionBlock& block_;
  const Tensor& d_out_;
  const Tensor& lse_;
  const Tensor& delta_;
  const AttentionGradients& gradients_;
  const std::vector<TokenTile> q_tiles_;
  const std::int64_t depth_;  // D
  const std::int64_t width_;  // E
  const std::int64_t q_stride_;
  const std::int64_t v_stride_;
  T* q_;             // [queries, D]
  T* k_;             // [keys, D]
  T* k_transposed_;  // [D, keys]
  T* v_transposed_;  // [E, keys]
  T* d_o_;           // [queries, E]
  T* p_;             // [queries, keys]
  T* d_s_;           // [queries, keys]
  T* d_q_;           // [queries, D]
  T* d_k_;           // [keys, D]
  T* d_v_;           // [keys, E]
};

}  // namespace

void CpuKernels::do_attention_backward(const AttentionBlock& block, const Tensor& d_out,
                                       const Tensor& lse, const Tensor& delta,
                                       const AttentionGradients& gradients) {
  const DType accumulator = accumulator_of(block.q.dtype());
  SP_CHECK(lse.dtype() == accumulator && delta.dtype() == accumulator,
           "log-sum-exp and delta hold the accumulator type of q");
  visit_accumulator(accumulator, [&]<class T>() {
    BackwardPass<T>(scratch_, block, d_out, lse, delta, gradients).run();
  });
}

}  // namespace sp
