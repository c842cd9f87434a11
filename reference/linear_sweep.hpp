// Sweeps over the tokens of one head, forth or back, that carry a state.
//
// The state holds outer products of keys and values for outputs, of queries and cotangents for the
// gradients of keys and values. What a token reads after it was added covers the tokens up to it in
// the order of the sweep; what it reads before covers the others only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "reference/linear_head.hpp"
#include "reference/linear_state.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {

enum class Order { kForth, kBack };

inline Values zeros(Index size) { return Values(static_cast<std::size_t>(size)); }

// Tokens [begin, end) in the order given. outer(j, x, y) is the outer product of token j;
// before(j, state, a) is called where a state reaches j, with what it loses on the way to j (not yet
// applied); after(j, state) when token j is part of it.
template <class Outer, class Before, class After>
void sweep(const Head& head, Order order, Index begin, Index end, State& state, const Outer& outer,
           const Before& before, const After& after) {
  Values a = zeros(head.F), x = zeros(head.F), y = zeros(head.W);
  for (Index n = 0; n < end - begin; ++n) {
    const Index j = order == Order::kForth ? begin + n : end - 1 - n;
    const Index border = order == Order::kForth ? j : j + 1;
    if (head.joined(border)) {
      head.decay(border, a.data());
      before(j, state, a);
    } else {
      state.reset();
    }
    outer(j, x.data(), y.data());
    state.step(a.data(), x.data(), y.data());
    after(j, state);
  }
}

inline constexpr auto kNothingBefore = [](Index, State&, const Values&) {};
inline constexpr auto kNothingAfter = [](Index, State&) {};

inline auto keys_of(const Head& head) {
  return [&head](Index j, double* x, double* y) {
    head.key(j, x);
    head.value(j, y);
  };
}
inline auto queries_of(const Head& head) {
  return [&head](Index j, double* x, double* y) {
    head.query(j, x);
    head.d_sums(j, y);
  };
}

// The states after each token of a sweep forth, asked for from the last token to the first: one in
// 64 is kept, the others are computed again.
template <class Outer>
class States {
 public:
  States(const Head& head, Outer outer) : head_(head), outer_(outer), state_(head.F, head.W) {
    sweep(head_, Order::kForth, 0, head_.N, state_, outer_, kNothingBefore,
          [&](Index j, State& state) {
            if (j % kStride == 0) kept_.push_back(state.values());
          });
  }
  const double* after(Index j) {
    if (j / kStride != block_) {
      block_ = j / kStride;
      state_.assign(kept_.data()[block_]);
      recent_.assign(1, state_.values());
      const Index begin = block_ * kStride;
      sweep(head_, Order::kForth, begin + 1, std::min(head_.N, begin + kStride), state_, outer_,
            kNothingBefore, [&](Index, State& state) { recent_.push_back(state.values()); });
    }
    return recent_.data()[j % kStride].data();
  }

 private:
  static constexpr Index kStride = 64;
  const Head& head_;
  Outer outer_;
  State state_;
  std::vector<Values> kept_, recent_;
  Index block_ = -1;
};

}  // namespace sp::reference
