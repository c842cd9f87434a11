// Attention forward: online softmax over tiles, the scores of one tile pair at a time.
//
// A strip of query tiles passes over all keys together, so that each packed key tile serves the
// whole strip. Scaled scores are rounded before the row maximum is taken from them: the largest
// weight is exp(0) = 1 exactly.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "optimized/kernels/cpu/attention_tiles.hpp"
#include "optimized/kernels/cpu/cpu_kernels.hpp"

namespace sp {
namespace {

constexpr std::int64_t kStripTiles = 8;

// One tile of queries of one head on its way through the keys.
template <class T>
struct QueryTile {
  const TokenTile* tokens;
  std::int64_t head;
  T* q;    // [kTileRows, D], scaled by nothing
  T* out;  // [kTileRows, E], sum of exp(score - largest) v
  std::array<T, kTileRows> largest;
  std::array<T, kTileRows> sum;  // of exp(score - largest); 0: no key seen
};

template <class T>
class ForwardPass {
 public:
  ForwardPass(Scratch& scratch, const AttentionBlock& block, const Partial& result)
      : block_(block),
        result_(result),
        q_tiles_(tiles_of(block.q_tokens)),
        k_tiles_(tiles_of(block.k_tokens)),
        q_stride_(tile::padded(block.q.extent(3))),
        v_stride_(tile::padded(block.v.extent(3))),
        q_(scratch.get<T>(Slot::kQuery, kStripTiles * kTileRows * q_stride_)),
        out_(scratch.get<T>(Slot::kOut, kStripTiles * kTileRows * v_stride_)),
        k_(scratch.get<T>(Slot::kKeyTransposed, block.k.extent(3) * kScoreStride)),
        v_(scratch.get<T>(Slot::kValue, kTileRows * v_stride_)),
        scores_(scratch.get<T>(Slot::kScores, kTileRows * kScoreStride)) {}

  void run() {
    for (std::int64_t b = 0; b < block_.q.extent(1); ++b) {
      const SequenceMask mask(block_.mask, b);
      for (std::int64_t g = 0; g < block_.k.extent(2); ++g) run_key_head(mask, b, g);
    }
  }

 private:
  // The query tiles of all heads that share key head g, strip by strip.
  void run_key_head(const SequenceMask& mask, std::int64_t b, std::int64_t g) {
    const std::int64_t group = block_.q.extent(2) / block_.k.extent(2);
    const std::int64_t tiles = static_cast<std::int64_t>(q_tiles_.size()) * group;
    for (std::int64_t begin = 0; begin < tiles; begin += kStripTiles) {
      const std::int64_t count = std::min(kStripTiles, tiles - begin);
      const std::span strip(strip_.data(), static_cast<std::size_t>(count));
      for (std::int64_t t = 0; t < count; ++t) {
        const auto index = static_cast<std::size_t>((begin + t) / group);
        load(strip[static_cast<std::size_t>(t)], t, q_tiles_[index], b,
             g * group + (begin + t) % group);
      }
      for (const TokenTile& keys : k_tiles_) add_keys(strip, keys, mask, b, g);
      for (const QueryTile<T>& queries : strip) finish(queries, b);
    }
  }

  void load(QueryTile<T>& queries, std::int64_t place, const TokenTile& tokens, std::int64_t b,
            std::int64_t head) {
    queries.tokens = &tokens;
    queries.head = head;
    queries.q = q_ + place * kTileRows * q_stride_;
    queries.out = out_ + place * kTileRows * v_stride_;
    queries.largest.fill(-std::numeric_limits<T>::infinity());
    queries.sum.fill(0);
    pack(queries.q, q_stride_, head_of(block_.q, b, head).row_window(tokens.begin, tokens.count()));
    std::fill(queries.out, queries.out + tokens.count() * v_stride_, T{0});
  }

  void add_keys(std::span<QueryTile<T>> strip, const TokenTile& keys, const SequenceMask& mask,
                std::int64_t b, std::int64_t g) {
    bool packed = false;
    for (QueryTile<T>& queries : strip) {
      const Visibility visibility = mask.classify(*queries.tokens, keys);
      if (visibility == Visibility::kEmpty) continue;
      if (!packed) {
        const auto rows = [&](const Tensor& tensor) {
          return head_of(tensor, b, g).row_window(keys.begin, keys.count());
        };
        pack_transposed(k_, kScoreStride, rows(block_.k));
        pack(v_, v_stride_, rows(block_.v));
        packed = true;
      }
      attend(queries, keys, mask, visibility);
    }
  }

  void attend(QueryTile<T>& queries, const TokenTile& keys, const SequenceMask& mask,
              Visibility visibility) {
    masked_scores(scores_, queries.q, k_, block_.q.extent(3), static_cast<T>(block_.scale),
                  *queries.tokens, keys, mask, visibility);
    for (std::int64_t i = 0; i < queries.tokens->count(); ++i) {
      T* row = scores_ + i * kScoreStride;
      T& largest = queries.largest[static_cast<std::size_t>(i)];
      T& sum = queries.sum[static_cast<std::size_t>(i)];
      const T before = largest;
      largest = std::max(largest, tile::row_max(row, keys.count()));
      // A row that has seen nothing has no finite maximum to shift by: its weights are all 0.
      const T shift = largest == -std::numeric_limits<T>::infinity() ? T{0} : largest;
      const T added = tile::exp_row(row, keys.count(), shift);
      if (before != largest) {
        const T correction = std::exp(before - shift);
        sum *= correction;
        tile::scale(queries.out + i * v_stride_, block_.v.extent(3), correction);
      }
      sum += added;
    }
    tile::multiply(tile::Product<T>{.c = queries.out,
                                    .c_stride = v_stride_,
                                    .a = scores_,
                                    .a_row_stride = kScoreStride,
                                    .a_column_stride = 1,
                                    .b = v_,
                                    .b_stride = v_stride_,
                                    .rows = queries.tokens->count(),
                                    .columns = block_.v.extent(3),
                                    .depth = keys.count(),
                                    .accumulate = true});
  }

  void finish(const QueryTile<T>& queries, std::int64_t b) {
    const TokenTile& tokens = *queries.tokens;
    const Matrix lse =
        head_of(result_.lse, b, queries.head).row_window(tokens.begin, tokens.count());
    for (std::int64_t i = 0; i < tokens.count(); ++i) {
      const T sum = queries.sum[static_cast<std::size_t>(i)];
      T* out = queries.out + i * v_stride_;
      if (sum == 0) {
        *lse.row<T>(i) = -std::numeric_limits<T>::infinity();
        continue;  // out is still 0
      }
      for (std::int64_t e = 0; e < v_stride_; ++e) out[e] /= sum;
      *lse.row<T>(i) = queries.largest[static_cast<std::size_t>(i)] + std::log(sum);
    }
    store(head_of(result_.out, b, queries.head).row_window(tokens.begin, tokens.count()),
          queries.out, v_stride_);
  }

  const AttentionBlock& block_;
  const Partial& result_;
  const std::vector<TokenTile> q_tiles_;
  const std::vector<TokenTile> k_tiles_;
  const std::int64_t q_stride_;
  const std::int64_t v_stride_;
  T* q_;       // kStripTiles tiles of [kTileRows, D]
  T* out_;     // kStripTiles tiles of [kTileRows, E]
  T* k_;       // [D, kTileRows]
  T* v_;       // [kTileRows, E]
  T* scores_;  // [kTileRows, kTileRows]
  std::array<QueryTile<T>, kStripTiles> strip_;
};

}  // namespace

void CpuKernels::do_attention(const AttentionBlock& block, const Partial& result) {
  SP_CHECK(result.lse.dtype() == accumulator_of(block.q.dtype()),
           "log-sum-exp holds the accumulator type of q");
  visit_accumulator(block.q.dtype(),
                    [&]<class T>() { ForwardPass<T>(scratch_, block, result).run(); });
}

}  // namespace sp
