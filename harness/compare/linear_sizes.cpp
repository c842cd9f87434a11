// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/linear_sizes.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "harness/compare/head_rows.hpp"
#include "harness/compare/in_parallel.hpp"
#include "harness/compare/likeness.hpp"
#include "harness/compare/rounded_state.hpp"

namespace sp {
namespace {

using std::int64_t;
using Values = std::vector<double>;

constexpr double kLittle = 1e6;  // elements of states: not worth a thread

void widen_row(const HostTensor& tensor, int64_t row, Values& target) {
  const auto size = std::ssize(target);
  visit_dtype(tensor.dtype(), [&]<class T>() {
    const T* source = tensor.as<T>().data() + row * size;
    for (int64_t c = 0; c < size; ++c) target[at(c)] = static_cast<double>(widen(source[c]));
  });
}

// The queries that meet one state of keys: of one head where it decays, else of all heads of a key head.
struct StateHead {
  int64_t b, first, group;  // query heads [first, first + group)
};

// Outer products of keys and values for out and d_q, or of queries and cotangents for d_k and d_v.
enum class Carries : std::uint8_t { kKeys, kQueries };

// What a state head gives to the gradient of its decays, [N, channels]: the sum of |x| size(d_x) + |x d_x| and of x d_x.
struct DecayTerms {
  Values sizes, values;
};

// Of one result: of the one or more sums that it is added up from.
struct Parts {
  HostTensor squares;  // of the sizes in units of w, together
  HostTensor sums;     // the squares of sums over tokens, together
  HostTensor alive;    // [B, rows, heads]: terms
};

class Sizes : HeadRows {
 public:
  Sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact,
        std::span<const int64_t> tokens)
      : HeadRows{problem.shape},
        problem_(problem),
        inputs_(inputs),
        exact_(exact),
        tokens_(tokens),
        decay_(decay_of(*problem.module)),
        backward_(!inputs.d_out.absent()),
        w_(unit_roundoff(accumulator_of(problem.dtype))) {
    const auto parts_of = [](const HostTensor& x) {
      return Parts{zeros_like(x), zeros_like(x),
                   HostTensor(DType::kF64, {x.extent(0), x.extent(1), x.extent(2)})};
    };
    out_ = parts_of(exact.out);
    if (!backward_) return;
    d_q_ = parts_of(exact.d_q);
    d_k_ = parts_of(exact.d_k);
    d_v_ = parts_of(exact.d_v);
    d_log_decay_ = zeros_like(exact.d_log_decay);
  }

  Outputs run() {
    // With the own token, and without it the other way round.
    run_ways(true);
    if (!problem_.mask.causal) run_ways(false);
    Outputs sizes;
    sizes.out = sizes_of(out_, exact_.out);
    if (!backward_) return sizes;
    sizes.d_q = sizes_of(d_q_, exact_.d_q);
    sizes.d_k = sizes_of(d_k_, exact_.d_k);
    sizes.d_v = sizes_of(d_v_, exact_.d_v);
    sizes.d_log_decay = std::move(d_log_decay_);
    for (int64_t i = 0; i < sizes.d_log_decay.size(); ++i)
      sizes.d_log_decay.set(i, w_ * sizes.d_log_decay.at(i));
    return sizes;
  }

 private:
  int64_t channels() const { return decay_ == Decay::kPerChannel ? shape.D : 1; }

  // Heads that share a key head one after the other, the others at once.
  void run_ways(bool own) {
    const int64_t group = shape.H / shape.G, heads = shape.B * shape.G;
    const double work =
        static_cast<double>(heads * shape.N) * static_cast<double>(shape.D * shape.E);
    for (int64_t member = 0; member < group; ++member) {
      std::vector<DecayTerms> terms(at(heads * 2));
      const auto head_of = [&](int64_t index) {
        return StateHead{index / shape.G, index % shape.G * group + member, 1};
      };
      in_parallel(heads * 2, work > kLittle, [&](int64_t task) {
        StateHead head = head_of(task / 2);
        if (task % 2 == 1) {
          if (backward_) sweep(head, Carries::kQueries, own, terms[at(task)]);
          return;
        }
        if (decay_ == Decay::kNone) head.group = member == 0 ? group : 0;
        if (head.group > 0) sweep(head, Carries::kKeys, own, terms[at(task)]);
      });
      if (d_log_decay_.absent()) continue;
      for (int64_t index = 0; index < heads; ++index)
        add_decays(head_of(index), terms[at(2 * index)], terms[at(2 * index + 1)]);
    }
  }

  bool border(int64_t b, int64_t n) const {  // between n - 1 and n
    const auto& ids = problem_.mask.segment_ids;
    return !ids.empty() && ids[at(b * shape.N + n)] != ids[at(b * shape.N + n - 1)];
  }

  // The border's log decay [D], null where nothing decays.
  const double* log_decay(const StateHead& head, int64_t n, Values& channels) const {
    if (decay_ == Decay::kNone) return nullptr;
    if (decay_ == Decay::kPerChannel)
      widen_row(inputs_.log_decay, query(head.b, n, head.first), channels);
    else
      std::ranges::fill(channels, inputs_.log_decay.at(head.first));
    return channels.data();
  }

  void sweep(const StateHead& head, Carries carries, bool own, DecayTerms& terms) {
    const int64_t N = shape.N;
    const bool keys = carries == Carries::kKeys, forth = keys == own;
    // In f64 the reference, which multiplies by rounded decays token by token, drifts too.
    const double drift = problem_.dtype == DType::kF64 ? 1 : 0;
    // Queries of all heads of a key may go to one state.
    const int64_t sharers = !keys && decay_ == Decay::kNone ? shape.H / shape.G : 1;
    RoundedState state(shape.D, shape.E, decay_ != Decay::kNone, w_, drift, sharers);
    Values decay(at(shape.D)), x(at(shape.D)), y(at(shape.E));
    if (!d_log_decay_.absent()) terms = {Values(at(N * channels())), Values(at(N * channels()))};
    auto wanted = forth ? int64_t{0} : std::ssize(tokens_) - 1;  // row of the next wanted token
    for (int64_t n = 0; n < N; ++n) {
      const int64_t token = forth ? n : N - 1 - n, later = forth ? token : token + 1;
      if (later > 0 && later < N && !border(head.b, later))
        state.fade(log_decay(head, later, decay));
      else
        state.reset();
      const bool read_it =
          wanted >= 0 && wanted < std::ssize(tokens_) && tokens_[at(wanted)] == token;
      if (read_it && !own) read(head, carries, token, wanted, state, terms);
      const int64_t source =
          keys ? key(head.b, token, head.first) : query(head.b, token, head.first);
      widen_row(keys ? inputs_.k : inputs_.q, source, x);
      widen_row(keys ? inputs_.v : inputs_.d_out, source, y);
      state.add(x.data(), y.data());
      if (read_it && own) read(head, carries, token, wanted, state, terms);
      if (read_it) wanted += forth ? 1 : -1;
    }
  }

  // Adds what a token reads from a state to its row of the results.
  void read(const StateHead& head, Carries carries, int64_t token, int64_t row, RoundedState& state,
            DecayTerms& terms) {
    const bool keys = carries == Carries::kKeys;
    const int64_t rows = std::ssize(tokens_);
    Values x(at(shape.D)), y(at(shape.E));
    RoundedState::Read of_columns, of_rows;
    for (int64_t h = head.first; h < head.first + head.group; ++h) {
      const int64_t source = keys ? query(head.b, token, h) : key(head.b, token, h);
      const int64_t target = keys ? (head.b * rows + row) * shape.H + h
                                  : (head.b * rows + row) * shape.G + h / (shape.H / shape.G);
      widen_row(keys ? inputs_.q : inputs_.k, source, x);
      state.columns(x.data(), of_columns);
      add(keys ? out_ : d_v_, target, of_columns);
      if (!backward_) continue;
      widen_row(keys ? inputs_.d_out : inputs_.v, source, y);
      state.rows(y.data(), of_rows);
      add(keys ? d_q_ : d_k_, target, of_rows);
      if (terms.sizes.empty()) continue;
      for (int64_t c = 0; c < shape.D; ++c) {
        const double by = problem_.scale * x[at(c)], value = by * of_rows.value[at(c)];
        const double size = std::hypot(by * std::sqrt(of_rows.square[at(c)]),
                                       by * std::sqrt(of_rows.alive / 3 * of_rows.sum[at(c)]));
        const int64_t to = token * channels() + (channels() == 1 ? 0 : c);
        terms.sizes[at(to)] += size + std::fabs(value);
        terms.values[at(to)] += value;
      }
    }
  }

  void add(Parts& parts, int64_t row, const RoundedState::Read& read) const {
    const int64_t size = std::ssize(read.value);
    const double scale2 = problem_.scale * problem_.scale;
    double* const squares = parts.squares.as<double>().data() + row * size;
    double* const sums = parts.sums.as<double>().data() + row * size;
    for (int64_t i = 0; i < size; ++i) {
      squares[i] += scale2 * read.square[at(i)];
      sums[i] += scale2 * read.sum[at(i)];
    }
    parts.alive.as<double>()[at(row)] += read.alive;
  }

  // Whatever the order of the parts: a sum of them is not far from the whole, or else from what each of them is.
  HostTensor sizes_of(const Parts& parts, const HostTensor& exact) const {
    HostTensor sizes = parts.squares;
    const int64_t width = exact.extent(3);
    for (int64_t i = 0; i < sizes.size(); ++i) {
      const double sum = std::max(exact.at(i) * exact.at(i), parts.sums.at(i));
      sizes.set(i, w_ * std::sqrt(sizes.at(i) + parts.alive.at(i / width) / 3 * sum));
    }
    return sizes;
  }

  // Decays are differentiated through sums of q d_q - k d_k up to the end of a document, at most.
  void add_decays(const StateHead& head, const DecayTerms& queries, const DecayTerms& keys) {
    double* const target = d_log_decay_.as<double>().data();
    for (int64_t c = 0; c < channels(); ++c) {
      double size = 0, value = 0, squares = 0;
      for (int64_t n = shape.N - 1; n >= 0; --n) {
        const std::size_t i = at(n * channels() + c);
        size += queries.sizes[i] + keys.sizes[i];
        value += queries.values[i] - keys.values[i];
        squares += value * value;
        target[decay_ == Decay::kPerHead ? head.first
                                         : query(head.b, n, head.first) * shape.D + c] +=
            size + std::sqrt(squares);
        if (n > 0 && border(head.b, n)) size = value = squares = 0;
      }
    }
  }

  const Problem& problem_;
  const Inputs& inputs_;
  const Outputs& exact_;
  const std::span<const int64_t> tokens_;
  const Decay decay_;
  const bool backward_;
  const double w_;
  Parts out_, d_q_, d_k_, d_v_;
  HostTensor d_log_decay_;  // sizes in units of w
};

}  // namespace

Outputs linear_sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                     std::span<const int64_t> tokens) {
  Outputs sizes = Sizes(problem, inputs, exact, tokens).run();
  multiply_sizes(sizes, likeness(inputs));
  return sizes;
}

Outputs linear_sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact) {
  std::vector<int64_t> tokens(at(problem.shape.N));
  std::iota(tokens.begin(), tokens.end(), 0);
  return linear_sizes(problem, inputs, exact, tokens);
}

}  // namespace sp
