// Gradients of the queries: the mirror of forward, with d_out in place of q, v of k, and k of v.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/linear_pass.hpp"

namespace sp {
namespace {

template <class T>
class QueryGradients : private LinearPass<T> {
  using Base = LinearPass<T>;
  using Base::decay_, Base::intra_, Base::k_, Base::map_, Base::n_, Base::q_, Base::state_;

 public:
  QueryGradients(Scratch& scratch, const LinearBlock& block, const Tensor& d_sums,
                 const LinearGradients& gradients, std::int64_t SH)
      : Base(scratch, block, SH, d_sums.extent(3)),
        d_sums_(d_sums),
        gradients_(gradients),
        d_q_(scratch.get<T>(Slot::kOut, Base::chunk_ * Base::row_stride_)) {}

  void run(const Tensor& before, const Tensor& after) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      this->load(before, head);
      for (const Piece& piece : pieces) {
        if (!piece.continues) this->zero_state();
        bool zero = !piece.continues || !before.defined();
        this->for_each_chunk(piece, [&](std::int64_t begin, std::int64_t n) {
          decay_.load(begin, n);
          this->load_keys(head, begin, n, false);
          this->load_values(head, begin, n, true);
          for (std::int64_t h = head.first; h < head.first + head.group; ++h) {
            this->load_queries(head.b, h, begin, n);
            this->load_d_out(d_sums_, head.b, h, begin, n, !zero);
            from_state(zero);
            decay_.fade_queries(d_q_);
            intra_.form_gradients(this->d_out_, this->v_columns_, q_, k_, false);
            intra_.add_d_q(d_q_, k_);
            finish(head, h, begin, n);
          }
          const bool last = begin + n == piece.begin + piece.count;
          const bool wanted = last ? after.defined() && begin + n == n_ : true;
          if (wanted) this->add_keys();
          zero = false;
        });
      }
      this->store(after, head);
    });
    this->norm_.add_gradients(gradients_.d_gamma, gradients_.d_beta);
  }

  // All tokens against one state that does not decay.
  void apply(const Tensor& state) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>&) {
      this->load(state, head);
      this->for_each_chunk({0, n_, true}, [&](std::int64_t begin, std::int64_t n) {
        for (std::int64_t h = head.first; h < head.first + head.group; ++h) {
          this->load_queries(head.b, h, begin, n);
          this->load_d_out(d_sums_, head.b, h, begin, n, true);
          from_state(false);
          store_gradient(head, h, begin, n);
        }
      });
    });
    this->norm_.add_gradients(gradients_.d_gamma, gradients_.d_beta);
  }

 private:
  void from_state(bool zero) {
    if (zero) {
      std::fill(d_q_, d_q_ + q_.n * q_.row_stride, T{0});
    } else {
      map_.differentiate(d_q_, this->points(q_), state_, this->d_out_columns_);
    }
  }

  void finish(const StateHead& head, std::int64_t h, std::int64_t begin, std::int64_t n) {
    this->add_decay_terms(gradients_.decay_terms, head, begin, q_, d_q_, T{1});
    store_gradient(head, h, begin, n);
  }

  void store_gradient(const StateHead& head, std::int64_t h, std::int64_t begin, std::int64_t n) {
    q_.differentiate(d_q_, this->norm_);
    store_sum(head_of(gradients_.d_q, head.b, h).row_window(begin, n), d_q_, q_.row_stride);
  }

  const Tensor& d_sums_;
  const LinearGradients& gradients_;
  T* d_q_;  // [n, D]
};

}  // namespace

void CpuKernels::do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                               const LinearGradients& gradients, const Tensor& after) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    QueryGradients<T>(scratch_, block, d_sums, gradients, state_heads(block)).run(before, after);
  });
}

void CpuKernels::do_linear_apply_d_q(const LinearBlock& block, const Tensor& state,
                                     const Tensor& d_sums, const LinearGradients& gradients) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    QueryGradients<T>(scratch_, {block.q, {}, {}, block.tokens, block.terms}, d_sums, gradients,
                      state.extent(2))
        .apply(state);
  });
}

}  // namespace sp
