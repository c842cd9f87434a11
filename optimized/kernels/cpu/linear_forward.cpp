// Linear attention forward: one sweep over a chunk per state head, with the state in scratch.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/linear_pass.hpp"

namespace sp {
namespace {

template <class T>
class ForwardPass : private LinearPass<T> {
  using Base = LinearPass<T>;
  using Base::add_keys, Base::load, Base::load_keys, Base::load_queries, Base::load_values,
      Base::points, Base::store, Base::zero_state;
  using Base::block_, Base::decay_, Base::intra_, Base::k_, Base::map_, Base::n_, Base::q_,
      Base::state_, Base::terms_, Base::v_, Base::value_stride_, Base::W_;

 public:
  ForwardPass(Scratch& scratch, const LinearBlock& block, std::int64_t SH, std::int64_t W)
      : Base(scratch, block, SH, W),
        out_(scratch.get<T>(Slot::kOut, Base::chunk_ * tile::padded(W))) {}

  void forward(const Tensor& before, const Tensor& sums, const Tensor& after) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      load(before, head);
      for (const Piece& piece : pieces) {
        if (!piece.continues) zero_state();
        bool zero = !piece.continues || !before.defined();
        this->for_each_chunk(piece, [&](std::int64_t begin, std::int64_t n) {
          decay_.load(begin, n);
          load_keys(head, begin, n, true);
          load_values(head, begin, n, false);
          for (std::int64_t h = head.first; h < head.first + head.group; ++h) {
            load_queries(head.b, h, begin, n);
            intra_.form_weights(q_, k_);
            if (!zero) apply_state();
            intra_.add_out(out_, v_, !zero);
            sp::store(rows(sums, head.b, h, begin, n), out_, value_stride_, scale());
          }
          const bool last = begin + n == piece.begin + piece.count;
          const bool wanted = last ? after.defined() && begin + n == n_ : true;
          if (wanted) add_keys();
          zero = false;
        });
      }
      store(after, head);
    });
  }

  // Of the last document only.
  void state(const Tensor& target) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      zero_state();
      if (!pieces.empty()) {
        this->for_each_chunk(pieces.back(), [&](std::int64_t begin, std::int64_t n) {
          decay_.load(begin, n);
          load_keys(head, begin, n, false);
          load_values(head, begin, n, false);
          add_keys();
        });
      }
      store(target, head);
    });
  }

  // Of the first document, if it began before the chunk.
  void inter(const Tensor& before, const Tensor& sums) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      if (pieces.empty() || !pieces.front().continues) return;
      load(before, head);
      this->for_each_chunk(pieces.front(), [&](std::int64_t begin, std::int64_t n) {
        decay_.load(begin, n);
        add_from_state(head, sums, begin, n);
        decay_.fade_state(state_, W_);
      });
    });
  }

  void apply(const Tensor& state, const Tensor& sums) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>&) {
      load(state, head);
      this->for_each_chunk({0, n_, true}, [&](std::int64_t begin, std::int64_t n) {
        add_from_state(head, sums, begin, n);
      });
    });
  }

 private:
  T scale() const { return static_cast<T>(terms_.scale); }
  static Matrix rows(const Tensor& tensor, std::int64_t b, std::int64_t h, std::int64_t begin,
                     std::int64_t n) {
    return head_of(tensor, b, h).row_window(begin, n);
  }

  // out = phi(q) decay state, after which q is faded.
  void apply_state() {
    decay_.fade_queries(q_.rows);
    map_.apply(out_, points(q_), state_);
  }

  void add_from_state(const StateHead& head, const Tensor& sums, std::int64_t begin,
                      std::int64_t n) {
    for (std::int64_t h = head.first; h < head.first + head.group; ++h) {
      load_queries(head.b, h, begin, n);
      apply_state();
      store_sum(rows(sums, head.b, h, begin, n), out_, value_stride_, scale());
    }
  }

  T* out_;  // [n, W]
};

// [F, B, SH] += the sum of log_decay over the chunk, in the last column of a state.
void store_total_decay(const Tensor& log_decay, const Tensor& column) {
  visit_accumulator(log_decay.dtype(), [&]<class T>() {
    std::vector<double> total(static_cast<std::size_t>(log_decay.extent(3)));
    for (std::int64_t b = 0; b < log_decay.extent(1); ++b) {
      for (std::int64_t h = 0; h < log_decay.extent(2); ++h) {
        const Matrix gates = head_of(log_decay, b, h);
        std::fill(total.begin(), total.end(), 0.0);
        for (std::int64_t i = 0; i < gates.rows; ++i) {
          const T* row = gates.template row<T>(i);
          for (std::size_t c = 0; c < total.size(); ++c) total[c] += static_cast<double>(row[c]);
        }
        const Matrix target = head_of(column, b, h);
        for (std::size_t c = 0; c < total.size(); ++c) {
          *target.template row<T>(static_cast<std::int64_t>(c)) = static_cast<T>(total[c]);
        }
      }
    }
  });
}

}  // namespace

void CpuKernels::do_linear_state(const LinearBlock& block, const Tensor& state) {
  const std::int64_t W = block.v.extent(3) + (is_normalised(block.terms.module) ? 1 : 0);
  if (state.extent(3) > W) store_total_decay(block.terms.log_decay, state.slice(3, W, W + 1));
  visit_accumulator(block.k.dtype(), [&]<class T>() {
    ForwardPass<T>(scratch_, block, state_heads(block), W).state(state);
  });
}

void CpuKernels::do_linear_forward(const LinearBlock& block, const Tensor& before,
                                   const Tensor& sums, const Tensor& after) {
  visit_accumulator(block.k.dtype(), [&]<class T>() {
    ForwardPass<T>(scratch_, block, state_heads(block), sums.extent(3))
        .forward(before, sums, after);
  });
}

void CpuKernels::do_linear_inter(const LinearBlock& block, const Tensor& before,
                                 const Tensor& sums) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    ForwardPass<T>(scratch_, {block.q, {}, {}, block.tokens, block.terms}, before.extent(2),
                   sums.extent(3))
        .inter(before, sums);
  });
}

void CpuKernels::do_linear_apply(const LinearBlock& block, const Tensor& state,
                                 const Tensor& sums) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    ForwardPass<T>(scratch_, {block.q, {}, {}, block.tokens, block.terms}, state.extent(2),
                   sums.extent(3))
        .apply(state, sums);
  });
}

}  // namespace sp
