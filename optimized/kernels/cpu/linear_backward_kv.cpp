// Gradients of keys and values: a sweep against time, with the gradient of the state in scratch.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/linear_pass.hpp"

namespace sp {
namespace {

// state_ holds the gradient of the state at the end of the sub-chunk in work.
template <class T>
class KeyGradients : private LinearPass<T> {
  using Base = LinearPass<T>;
  using Base::decay_, Base::intra_, Base::k_, Base::map_, Base::n_, Base::q_, Base::state_;

 public:
  KeyGradients(Scratch& scratch, const LinearBlock& block, const Tensor& d_sums,
               const LinearGradients& gradients, std::int64_t SH, std::int64_t W)
      : Base(scratch, block, SH, W),
        d_sums_(d_sums),
        gradients_(gradients),
        d_k_(scratch.get<T>(Slot::kKeyGradient, Base::chunk_ * Base::row_stride_)),
        d_v_(scratch.get<T>(Slot::kValueGradient, Base::chunk_ * Base::value_stride_)),
        faded_(scratch.get<T>(Slot::kDecayed, Base::chunk_ * Base::row_stride_)) {}

  void run(const Tensor& d_after, const Tensor& d_before) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      this->load(d_after, head);
      bool zero = !d_after.defined();
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        if (piece != pieces.rbegin()) {
          this->zero_state();
          zero = true;
        }
        this->for_each_chunk_backwards(*piece, [&](std::int64_t begin, std::int64_t n) {
          load(head, begin, n);
          from_state(zero);
          const bool first = begin == piece->begin;
          const bool wanted = first ? piece->continues && d_before.defined() : true;
          if (wanted) decay_.fade_state(state_, this->W_);
          for (std::int64_t h = head.first; h < head.first + head.group; ++h) {
            this->load_queries(head.b, h, begin, n);
            this->load_d_out(d_sums_, head.b, h, begin, n, false);
            intra_.form_gradients(this->d_out_, this->v_columns_, q_, k_, true);
            intra_.add_d_v(d_v_, this->d_out_);
            intra_.add_d_k(d_k_, q_);
            if (wanted) add_queries();
          }
          finish(head, begin, n);
          zero = false;
        });
      }
      if (!pieces.empty() && !pieces.front().continues) this->zero_state();
      this->store(d_before, head);
    });
    this->norm_.add_gradients(gradients_.d_gamma, gradients_.d_beta);
  }

  // The last document's share of the gradient of the state at its end.
  void inter(const Tensor& d_after) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      if (pieces.empty()) return;
      this->load(d_after, head);
      this->for_each_chunk_backwards(pieces.back(), [&](std::int64_t begin, std::int64_t n) {
        load(head, begin, n);
        from_state(false);
        finish(head, begin, n);
        decay_.fade_state(state_, this->W_);
      });
    });
    this->norm_.add_gradients(gradients_.d_gamma, gradients_.d_beta);
  }

  // The gradient of the state before the chunk: of its first document, if it began earlier.
  void state(const Tensor& target) {
    this->for_each_head([&](const StateHead& head, const std::vector<Piece>& pieces) {
      this->zero_state();
      if (!pieces.empty() && pieces.front().continues) {
        this->for_each_chunk_backwards(pieces.front(), [&](std::int64_t begin, std::int64_t n) {
          decay_.load(begin, n);
          decay_.fade_state(state_, this->W_);
          for (std::int64_t h = head.first; h < head.first + head.group; ++h) {
            this->load_queries(head.b, h, begin, n);
            this->load_d_out(d_sums_, head.b, h, begin, n, false);
            add_queries();
          }
        });
      }
      this->store(target, head);
    });
  }

 private:
  void load(const Tensor& state, const StateHead& head) { Base::load(state, head); }
  void load(const StateHead& head, std::int64_t begin, std::int64_t n) {
    decay_.load(begin, n);
    this->load_keys(head, begin, n, true);
    this->load_values(head, begin, n, true);
  }

  // d_k and d_v = their shares of the gradient of the state at the end of the sub-chunk.
  void from_state(bool zero) {
    if (zero) {
      std::fill(d_k_, d_k_ + k_.n * k_.row_stride, T{0});
      std::fill(d_v_, d_v_ + k_.n * this->value_stride_, T{0});
      return;
    }
    map_.differentiate(d_k_, this->points(k_), state_, this->v_columns_);
    decay_.fade_keys(d_k_);
    std::copy_n(k_.rows, k_.n * k_.row_stride, faded_);
    decay_.fade_keys(faded_);
    map_.apply(d_v_, {faded_, k_.columns, k_.n}, state_);
  }

  // state += phi(q)T decay d_out, after which q is faded.
  void add_queries() {
    decay_.fade_queries(q_.rows);
    map_.add(state_, this->points(q_), this->d_out_);
  }

  void finish(const StateHead& head, std::int64_t begin, std::int64_t n) {
    this->add_decay_terms(gradients_.decay_terms, head, begin, k_, d_k_, T{-1});
    k_.differentiate(d_k_, this->norm_);
    store_sum(head_of(gradients_.d_k, head.b, head.key).row_window(begin, n), d_k_, k_.row_stride);
    store_sum(head_of(gradients_.d_v, head.b, head.key).row_window(begin, n), d_v_,
              this->value_stride_);
  }

  const Tensor& d_sums_;
  const LinearGradients& gradients_;
  T* d_k_;    // [n, D]
  T* d_v_;    // [n, W]
  T* faded_;  // [n, D]
};

}  // namespace

void CpuKernels::do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                                   const Tensor& d_state) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    KeyGradients<T>(scratch_, {block.q, {}, {}, block.tokens, block.terms}, d_sums, {},
                    d_state.extent(2), d_sums.extent(3))
        .state(d_state);
  });
}

void CpuKernels::do_linear_d_kv(const LinearBlock& block, const Tensor& d_after,
                                const Tensor& d_sums, const LinearGradients& gradients,
                                const Tensor& d_before) {
  visit_accumulator(block.q.dtype(), [&]<class T>() {
    KeyGradients<T>(scratch_, block, d_sums, gradients, state_heads(block), d_sums.extent(3))
        .run(d_after, d_before);
  });
}

void CpuKernels::do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                                      const LinearGradients& gradients) {
  visit_accumulator(block.k.dtype(), [&]<class T>() {
    KeyGradients<T>(scratch_, {{}, block.k, block.v, block.tokens, block.terms}, {}, gradients,
                    d_after.extent(2), d_after.extent(3))
        .inter(d_after);
  });
}

}  // namespace sp
