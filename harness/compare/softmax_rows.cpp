// Three sweeps over tiles of pairs: queries for out, lse and delta; queries for d_q; keys for d_k and d_v. Tiles of one
// sweep share nothing that they write.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/softmax_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "harness/compare/double_tiles.hpp"
#include "harness/compare/in_parallel.hpp"
#include "harness/compare/softmax_tiles.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

using namespace tiles;
using std::int64_t;

constexpr int64_t kTile = 128;  // rows of a tile; a multiple of kLanes
constexpr double kUnseen = -std::numeric_limits<double>::infinity();  // score of a hidden pair
constexpr double kSerialWork = 2e6;  // multiply-adds that are not worth a thread

// What the first sweep leaves of every query to the others.
struct QueryState {
  double lse = 0, lse_error = 0, delta = 0, delta_error = 0;
  double seen = 0;  // keys
};

class Sweeps {
 public:
  Sweeps(const SoftmaxInputs& in, std::span<const int64_t> queries, std::span<const int64_t> keys)
      : in_(in),
        s_(in.problem.shape),
        queries_(queries),
        keys_(keys),
        q_(in.q, s_.N, s_.H, s_.D),
        k_(in.k, in.M, s_.G, s_.D),
        v_(in.v, in.M, s_.G, s_.E),
        d_out_(in.d_out, s_.N, s_.H, s_.E),
        all_queries_(at(s_.N)),
        all_keys_(at(in.M)),
        state_(at(s_.B * s_.N * s_.H)),
        w_(unit_roundoff(accumulator_of(in.problem.dtype))),
        u_(unit_roundoff(in.problem.dtype)),
        operand_(in.operands == Operands::kStorage && w_ != u_ ? 0.375 * u_ : 0) {
    std::iota(all_queries_.begin(), all_queries_.end(), 0);
    std::iota(all_keys_.begin(), all_keys_.end(), 0);
    const int64_t rows = s_.B * std::ssize(queries) * s_.H,
                  columns = s_.B * std::ssize(keys) * s_.G;
    result_.out = Sized(rows * s_.E);
    result_.lse = Sized(rows);
    result_.partial.resize(at(rows * s_.E));
    result_.backward = in.backward;
    if (!in.backward) return;
    result_.d_q = Sized(rows * s_.D);
    result_.d_k = Sized(columns * s_.D);
    result_.d_v = Sized(columns * s_.E);
  }

  SoftmaxRows run() {
    const bool backward = in_.backward;
    const bool of_all = backward && !keys_.empty();  // d_k and d_v need every query's lse and delta
    const std::span<const int64_t> first =
        of_all ? std::span<const int64_t>(all_queries_) : queries_;
    sweep(first, s_.H, in_.M, [this](auto tile, int64_t b, int64_t h) { forward(tile, b, h); });
    if (backward) {
      sweep(queries_, s_.H, in_.M,
            [this](auto tile, int64_t b, int64_t h) { query_gradients(tile, b, h); });
      sweep(keys_, s_.G, s_.N * (s_.H / s_.G),
            [this](auto tile, int64_t b, int64_t g) { key_gradients(tile, b, g); });
    }
    return std::move(result_);
  }

 private:
  template <class F>
  void sweep(std::span<const int64_t> tokens, int64_t heads, int64_t others, F&& f) {
    const int64_t tiles = (std::ssize(tokens) + kTile - 1) / kTile;
    const double work = static_cast<double>(s_.B * heads * std::ssize(tokens) * (s_.D + s_.E)) *
                        static_cast<double>(others);
    in_parallel(s_.B * heads * tiles, work > kSerialWork, [&](int64_t task) {
      const int64_t tile = tiles - 1 - task % tiles, head = task / tiles % heads,
                    b = task / tiles / heads;  // long rows first
      const int64_t begin = tile * kTile, count = std::min(kTile, std::ssize(tokens) - begin);
      f(tokens.subspan(at(begin), at(count)), b, head);
    });
  }

  enum class View : std::uint8_t { kNothing, kPart, kWhole };
  // What a tile of queries sees of a tile of keys. Tokens of a tile ascend, so its ends say it; documents are looked up
  // pair by pair.
  View view(std::span<const int64_t> queries, std::span<const int64_t> keys) const {
    const Mask& mask = in_.problem.mask;
    const int64_t ahead = keys.front() - queries.back(), behind = queries.front() - keys.back();
    if (mask.causal && ahead > 0) return View::kNothing;
    if (mask.window > 0 && std::max(ahead, behind) >= mask.window) return View::kNothing;
    const int64_t most_ahead = keys.back() - queries.front(),
                  most_behind = queries.back() - keys.front();
    if (!mask.segment_ids.empty() || (mask.causal && most_ahead > 0)) return View::kPart;
    return mask.window > 0 && std::max(most_ahead, most_behind) >= mask.window ? View::kPart
                                                                               : View::kWhole;
  }

  // Scores of a tile of queries and a tile of keys, [queries, padded(keys)], and how many of the others in the tile every
  // query and every key sees.
  struct Scores {
    Doubles values, of_query, of_key;
  };
  void score(Scores& scores, const Rows& q, std::span<const int64_t> queries, const Rows& k,
             std::span<const int64_t> keys, int64_t b) const {
    const int64_t width = k.width();
    scores.values.assign(at(q.count * width), 0);
    double_tiles::multiply_add({scores.values.data(), width, q.rows.data(), q.stride, 1,
                                k.turned.data(), width, q.count, width, q.size});
    for (double& score : scores.values) score *= in_.problem.scale;
    for (int64_t i = 0; i < q.count; ++i)
      std::fill_n(scores.values.data() + i * width + k.count, width - k.count, kUnseen);
    const bool whole = view(queries, keys) == View::kWhole;
    scores.of_query.assign(at(q.count), whole ? static_cast<double>(k.count) : 0);
    scores.of_key.assign(at(k.count), whole ? static_cast<double>(q.count) : 0);
    for (std::size_t i = 0; i < queries.size() && !whole; ++i) {
      double* row = scores.values.data() + i * at(width);
      for (std::size_t j = 0; j < keys.size(); ++j) {
        if (sees(b, queries[i], keys[j])) {
          ++scores.of_query[i], ++scores.of_key[j];
        } else {
          row[j] = kUnseen;
        }
      }
    }
  }

  bool sees(int64_t b, int64_t i, int64_t j) const {
    const Mask& mask = in_.problem.mask;
    if (mask.causal && j > i) return false;
    if (mask.window > 0 && std::llabs(i - j) >= mask.window) return false;
    const auto& id = mask.segment_ids;
    return id.empty() || id[at(b * s_.N + i)] == id[at(b * s_.N + j)];
  }

  struct KeyTile {
    Rows k, v;
    Doubles k_error, v_error;
    int64_t width() const { return k.width(); }
    double_tiles::KeyTerms terms() const {
      return {k.norms.data(), v.norms.data(), k_error.data(), v_error.data()};
    }
  };
  void load(KeyTile& tile, std::span<const int64_t> keys, int64_t b, int64_t g, unsigned of_k,
            unsigned of_v) const {
    tile.k.load(k_, b, g, keys, of_k);
    tile.v.load(v_, b, g, keys, of_v);
    for (const auto& [errors, of] :
         {std::pair{&tile.k_error, &in_.k_error}, {&tile.v_error, &in_.v_error}}) {
      errors->assign(at(tile.width()), 0);
      for (std::size_t j = 0; !of->empty() && j < keys.size(); ++j)
        (*errors)[j] = (*of)[at(k_.row(b, keys[j], g))];
    }
  }
  // f(keys, tile) for all keys that a query of the tile may see.
  template <class F>
  void for_each_key_tile(std::span<const int64_t> queries, int64_t b, int64_t h, unsigned of_k,
                         unsigned of_v, F&& f) const {
    KeyTile tile;
    for (int64_t begin = 0; begin < in_.M; begin += kTile) {
      const auto keys = std::span<const int64_t>(all_keys_).subspan(
          at(begin), at(std::min(kTile, in_.M - begin)));
      if (view(queries, keys) == View::kNothing) continue;
      load(tile, keys, b, h / (s_.H / s_.G), of_k, of_v);
      f(keys, tile);
    }
  }

  int64_t tile_width() const { return padded(std::min(kTile, in_.M)); }
  const QueryState& state(int64_t b, int64_t i, int64_t h) const {
    return state_[at((b * s_.N + i) * s_.H + h)];
  }

  double_tiles::QueryTerms terms_of(const Rows& q, const Rows* d_out, int64_t row,
                                    const QueryState& state) const {
    double_tiles::QueryTerms terms;
    terms.lse = state.lse == kUnseen ? 0 : state.lse;
    terms.delta = state.delta;
    terms.w = w_;
    terms.steps = static_cast<double>(std::min(kTile, in_.M));
    terms.scale = in_.problem.scale;
    terms.score_walk = 1 + std::sqrt(static_cast<double>(in_.problem.shape.D) / 3);
    terms.q_norm = q.norms[at(row)];
    terms.d_out_norm = d_out != nullptr ? d_out->norms[at(row)] : 0;
    terms.operand = operand_;
    terms.smallest = in_.problem.dtype == DType::kF16 ? 0x1p-14 : 0;
    return terms;
  }
  // A sum that is stored once more, and what rounded operands have in common.
  double of_storing() const { return squared(w_) + squared(operand_ / 2); }
  void forward(std::span<const int64_t> queries, int64_t b, int64_t h) {
    Rows q;
    q.load(q_, b, h, queries, kRows);
    std::vector<QueryState> states(queries.size());
    Scores scores;
    Doubles top(queries.size(), kUnseen), sum(queries.size());
    for_each_key_tile(queries, b, h, kTurned, kRows, [&](auto keys, const KeyTile& tile) {
      score(scores, q, queries, tile.k, keys, b);
      for (std::size_t i = 0; i < queries.size(); ++i) {
        states[i].seen += scores.of_query[i];
        const double* row = scores.values.data() + static_cast<int64_t>(i) * tile.width();
        const double most = std::max(top[i], double_tiles::largest(row, tile.width()));
        if (most == kUnseen) continue;
        sum[i] =
            sum[i] * std::exp(top[i] - most) + double_tiles::sum_of_exp(row, most, tile.width());
        top[i] = most;
      }
    });
    for (std::size_t i = 0; i < queries.size(); ++i) {
      states[i].lse = states[i].seen == 0 ? kUnseen : top[i] + std::log(sum[i]);
    }

    Sums out(q.count, s_.E);
    if (w_ != u_) out.squares.resize(out.sum.size());
    Doubles p(at(q.count * tile_width())), variance(p);
    std::vector<double_tiles::ForwardSums> sums(queries.size());
    for_each_key_tile(queries, b, h, kTurned, kSquares, [&](auto keys, const KeyTile& tile) {
      score(scores, q, queries, tile.k, keys, b);
      const int64_t width = tile.width();
      for (int64_t i = 0; i < q.count; ++i) {
        const double_tiles::ForwardSums of_tile = double_tiles::forward_pairs(
            terms_of(q, nullptr, i, states[at(i)]), tile.terms(), scores.values.data() + i * width,
            p.data() + i * width, variance.data() + i * width, width);
        sums[at(i)].p_variance += of_tile.p_variance;
        sums[at(i)].of_values += of_tile.of_values;
      }
      out.add(p, variance, width, false, tile.v, scores.of_query, w_);
      if (out.squares.empty()) return;
      for (double& x : p) x *= x;
      out.multiply(out.squares, p, width, false, tile.v, tile.v.squares);
    });
    for (std::size_t i = 0; i < queries.size(); ++i)
      finish_forward(queries[i], b, h, states[i], sums[i], out, static_cast<int64_t>(i));
  }

  // Rows of the result that belong to a query, or -1: nobody asked for them.
  int64_t asked(std::span<const int64_t> tokens, int64_t token) const {
    const auto found = std::ranges::lower_bound(tokens, token);
    return found != tokens.end() && *found == token ? found - tokens.begin() : -1;
  }

  void finish_forward(int64_t token, int64_t b, int64_t h, QueryState& state,
                      const double_tiles::ForwardSums& sums, const Sums& out, int64_t i) {
    const int64_t R = std::ssize(queries_), row = asked(queries_, token);
    const double of_lse =
        state.seen == 0 ? 0 : w_ * (1 + std::fabs(state.lse) + std::sqrt(state.seen) / 3);
    const double common = squared(of_lse) + of_storing();
    state.lse_error = std::sqrt(sums.p_variance + squared(of_lse));
    const double* d_out =
        !in_.backward ? nullptr : in_.d_out.data() + ((b * s_.N + token) * s_.H + h) * s_.E;
    double d_out2 = 0, out2 = 0;
    for (int64_t c = 0; c < s_.E; ++c) {
      const int64_t element = i * out.stride + c;
      const double exact = out.sum[at(element)], range = out.range(element);
      const double size2 = out.variance[at(element)] + sums.of_values +
                           squared(exact) * sums.p_variance + common * squared(range);
      // Of two partial results at most; those of one key each are worth the squares of their terms.
      const double squares = out.squares.empty() ? 0 : out.squares[at(element)];
      const double partial = u_ * std::sqrt(squared(range) + squares);
      if (d_out != nullptr) {
        state.delta += d_out[c] * exact;
        state.delta_error += squared(d_out[c]) * (size2 + squared(u_ * exact) + squared(partial));
        d_out2 += squared(d_out[c]), out2 += squared(exact);
      }
      if (row < 0) continue;
      const std::size_t target = at(((b * R + row) * s_.H + h) * s_.E + c);
      result_.out.exact[target] = exact;
      result_.out.size[target] = std::sqrt(size2);
      result_.partial[target] = partial;
    }
    state.delta_error = std::sqrt(state.delta_error + squared(w_) * d_out2 * out2);
    state_[at((b * s_.N + token) * s_.H + h)] = state;
    if (row < 0) return;
    const std::size_t target = at((b * s_.H + h) * R + row);
    result_.lse.exact[target] = state.lse;
    result_.lse.size[target] = state.lse_error;
  }

  // Pairs of tiles for the sweeps of gradients.
  struct Pairs {
    Scores scores;
    Doubles d_p, p, p_variance, d_score, d_score_variance;
  };
  // `common`: what is common to a query counts into its pairs.
  // Returns what errors of the keys add to the variance of every query's d_q.
  Doubles differentiate(Pairs& pairs, const Rows& q, const Rows& d_out,
                        std::span<const int64_t> queries, const KeyTile& tile,
                        std::span<const int64_t> keys, int64_t b, int64_t h,
                        bool of_keys_side) const {
    score(pairs.scores, q, queries, tile.k, keys, b);
    const int64_t width = tile.width();
    pairs.d_p.assign(at(q.count * width), 0);
    for (Doubles* x : {&pairs.p, &pairs.p_variance, &pairs.d_score, &pairs.d_score_variance})
      x->resize(at(q.count * width));
    double_tiles::multiply_add({pairs.d_p.data(), width, d_out.rows.data(), d_out.stride, 1,
                                tile.v.turned.data(), width, q.count, width, d_out.size});
    Doubles of_keys(queries.size());
    for (int64_t i = 0; i < q.count; ++i) {
      const QueryState& query = state(b, queries[at(i)], h);
      double_tiles::QueryTerms terms = terms_of(q, &d_out, i, query);
      if (of_keys_side) terms.lse_error = query.lse_error, terms.delta_error = query.delta_error;
      const int64_t from = i * width;
      of_keys[at(i)] = double_tiles::backward_pairs(
          terms, tile.terms(), pairs.scores.values.data() + from, pairs.d_p.data() + from,
          pairs.p.data() + from, pairs.p_variance.data() + from, pairs.d_score.data() + from,
          pairs.d_score_variance.data() + from, width);
    }
    return of_keys;
  }

  void query_gradients(std::span<const int64_t> queries, int64_t b, int64_t h) {
    Rows q, d_out;
    q.load(q_, b, h, queries, kRows);
    d_out.load(d_out_, b, h, queries, kRows);
    Sums d_q(q.count, s_.D);
    Doubles mean_key(d_q.sum.size()), of_keys(queries.size());  // sum p k
    Pairs pairs;
    for_each_key_tile(
        queries, b, h, kSquares | kTurned, kTurned, [&](auto keys, const KeyTile& tile) {
          const Doubles added = differentiate(pairs, q, d_out, queries, tile, keys, b, h, false);
          for (std::size_t i = 0; i < added.size(); ++i) of_keys[i] += added[i];
          d_q.add(pairs.d_score, pairs.d_score_variance, tile.width(), false, tile.k,
                  pairs.scores.of_query, w_);
          d_q.multiply(mean_key, pairs.p, tile.width(), false, tile.k, tile.k.rows);
        });
    const int64_t R = std::ssize(queries_);
    for (int64_t i = 0; i < q.count; ++i) {
      const QueryState& query = state(b, queries[at(i)], h);
      const double common = squared(query.lse_error) + of_storing();
      const int64_t row = asked(queries_, queries[at(i)]);
      for (int64_t c = 0; c < s_.D; ++c) {
        const int64_t element = i * d_q.stride + c;
        const std::size_t target = at(((b * R + row) * s_.H + h) * s_.D + c);
        result_.d_q.exact[target] = d_q.sum[at(element)];
        result_.d_q.size[target] = std::sqrt(
            d_q.variance[at(element)] + of_keys[at(i)] + common * squared(d_q.range(element)) +
            squared(query.delta_error * in_.problem.scale * mean_key[at(element)]));
      }
    }
  }

  void key_gradients(std::span<const int64_t> keys, int64_t b, int64_t g) {
    KeyTile tile;
    load(tile, keys, b, g, kTurned, kTurned);
    Sums d_k(tile.k.count, s_.D), d_v(tile.v.count, s_.E);
    Rows q, d_out;
    Pairs pairs;
    for (int64_t h = g * (s_.H / s_.G); h < (g + 1) * (s_.H / s_.G); ++h) {
      for (int64_t begin = 0; begin < s_.N; begin += kTile) {
        const auto queries = std::span<const int64_t>(all_queries_)
                                 .subspan(at(begin), at(std::min(kTile, s_.N - begin)));
        if (view(queries, keys) == View::kNothing) continue;
        q.load(q_, b, h, queries, kSquares);
        d_out.load(d_out_, b, h, queries, kSquares);
        differentiate(pairs, q, d_out, queries, tile, keys, b, h, true);
        d_k.add(pairs.d_score, pairs.d_score_variance, tile.width(), true, q, pairs.scores.of_key,
                w_);
        d_v.add(pairs.p, pairs.p_variance, tile.width(), true, d_out, pairs.scores.of_key, w_);
      }
    }
    const auto store = [&](const Sums& sums, int64_t width, Sized& result) {
      for (int64_t j = 0; j < tile.k.count; ++j) {
        const int64_t row = asked(keys_, keys[at(j)]);
        for (int64_t c = 0; c < width; ++c) {
          const int64_t element = j * sums.stride + c;
          const std::size_t target = at(((b * std::ssize(keys_) + row) * s_.G + g) * width + c);
          result.exact[target] = sums.sum[at(element)];
          result.size[target] =
              std::sqrt(sums.variance[at(element)] + of_storing() * squared(sums.range(element)));
        }
      }
    };
    store(d_k, s_.D, result_.d_k);
    store(d_v, s_.E, result_.d_v);
  }

  const SoftmaxInputs& in_;
  const Shape s_;
  const std::span<const int64_t> queries_, keys_;
  const Tensor q_, k_, v_, d_out_;
  std::vector<int64_t> all_queries_, all_keys_;
  std::vector<QueryState> state_;  // [B, N, H]
  const double w_, u_, operand_;
  SoftmaxRows result_;
};

}  // namespace

SoftmaxRows softmax_rows(const SoftmaxInputs& inputs, std::span<const int64_t> queries,
                         std::span<const int64_t> keys) {
  return Sweeps(inputs, queries, keys).run();
}

}  // namespace sp
