// Sums of states, the normaliser, and the gradient of the decays: no products.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/linear_pieces.hpp"
#include "optimized/kernels/cpu/matrix.hpp"

namespace sp {
namespace {

template <class T>
class Accumulation {
 public:
  Accumulation(const Tensor& into, const LinearTerms& terms) : into_(into), terms_(terms) {}

  void add(const StateSpan& span) {
    const Decay kind = decay_of(terms_.module);
    for (std::int64_t b = 0; b < into_.extent(1); ++b) {
      const bool reset = begins_document(span.tokens, terms_, b);
      for (std::int64_t s = 0; s < into_.extent(2); ++s) {
        const Matrix into = head_of(into_, b, s), state = head_of(span.state, b, s);
        double log_decay = 0;
        if (kind == Decay::kPerHead && span.tokens.count > 0) {
          log_decay = static_cast<double>(span.tokens.count) * value(terms_.log_decay, 0, 0, s);
        }
        for (std::int64_t f = 0; f < into.rows; ++f) {
          if (kind == Decay::kPerChannel) log_decay = value(span.log_decay, f, b, s);
          add_row(into.row<T>(f), state.row<T>(f), into.columns, reset, std::exp(log_decay));
        }
      }
    }
  }

 private:
  static double value(const Tensor& tensor, std::int64_t i, std::int64_t b, std::int64_t h) {
    return static_cast<double>(*head_of(tensor, b, h).row<T>(i));
  }

  // The decay is not rounded first: in a long chain such errors would all have one sign.
  static void add_row(T* into, const T* from, std::int64_t count, bool reset, double decay) {
    if (reset || decay == 0) {
      std::copy_n(from, count, into);
    } else if (decay == 1) {
      for (std::int64_t w = 0; w < count; ++w) into[w] += from[w];
    } else {
      for (std::int64_t w = 0; w < count; ++w) {
        into[w] =
            static_cast<T>(decay * static_cast<double>(into[w]) + static_cast<double>(from[w]));
      }
    }
  }

  const Tensor& into_;
  const LinearTerms& terms_;
};

// Calls f(b, h) for every head of a tensor [n, B, H, d].
template <class F>
void for_each_head(const Tensor& tensor, F f) {
  for (std::int64_t b = 0; b < tensor.extent(1); ++b) {
    for (std::int64_t h = 0; h < tensor.extent(2); ++h) f(b, h);
  }
}

// out = sums, or their first columns over the last; S is the type of out.
template <class T, class S>
void output_rows(const Matrix& out, const Matrix& sums, double epsilon) {
  const bool normalised = sums.columns > out.columns;
  for (std::int64_t i = 0; i < out.rows; ++i) {
    const T* row = sums.row<T>(i);
    S* target = out.row<S>(i);
    const T divisor = normalised ? row[out.columns] + static_cast<T>(epsilon) : T{1};
    for (std::int64_t e = 0; e < out.columns; ++e) target[e] = narrow<S>(row[e] / divisor);
  }
}

// d of the numerator is d_out / divisor; of the denominator -<d_out, out> / divisor.
template <class T, class S>
void output_backward_rows(const Matrix& d_sums, const Matrix& d_out, const Matrix& sums,
                          double epsilon) {
  const std::int64_t E = d_out.columns;
  const bool normalised = sums.columns > E;
  for (std::int64_t i = 0; i < d_out.rows; ++i) {
    const T* row = sums.row<T>(i);
    const S* gradient = d_out.row<S>(i);
    const T divisor = normalised ? row[E] + static_cast<T>(epsilon) : T{1};
    double along = 0;
    const auto put = [&](std::int64_t column, T value) {
      visit_float(d_sums.dtype, [&]<class R>() { d_sums.row<R>(i)[column] = narrow<R>(value); });
    };
    for (std::int64_t e = 0; e < E; ++e) {
      const T g = static_cast<T>(widen(gradient[e]));
      along += static_cast<double>(g) * static_cast<double>(row[e] / divisor);
      put(e, g / divisor);
    }
    if (normalised) put(E, static_cast<T>(-along) / divisor);
  }
}

// The gradient of the decay of token i is the sum of the terms from i to the end of its document in
// the chunk; where the document runs up to the chunk's end also <state, its gradient> there, which
// holds what later chunks add. Terms cancel, so sums are in double.
template <class T>
class DecayGradients {
 public:
  DecayGradients(const LinearBlock& block, const Tensor& terms, const Tensor& after,
                 const Tensor& d_after)
      : block_(block), terms_(terms), after_(after), d_after_(d_after) {}

  void per_channel(const Tensor& target) const {
    std::vector<double> sums(static_cast<std::size_t>(terms_.extent(3)));
    for_each_head(terms_, [&](std::int64_t b, std::int64_t h) {
      const Matrix terms = head_of(terms_, b, h), result = head_of(target, b, h);
      const std::vector<Piece> pieces = pieces_of(block_.tokens, block_.terms, b);
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        for (std::size_t c = 0; c < sums.size(); ++c) {
          sums[c] = piece == pieces.rbegin() ? at_end(b, h, static_cast<std::int64_t>(c)) : 0;
        }
        for (std::int64_t i = piece->begin + piece->count - 1; i >= piece->begin; --i) {
          const T* row = terms.template row<T>(i);
          T* out = result.template row<T>(i);
          for (std::size_t c = 0; c < sums.size(); ++c) {
            sums[c] += static_cast<double>(row[c]);
            out[c] = static_cast<T>(sums[c]);
          }
        }
      }
    });
  }

  // Summed over tokens and sequences: each term counts once for every token of its document up to
  // its own.
  void per_head(const Tensor& target) const {
    std::vector<double> sums(static_cast<std::size_t>(terms_.extent(2)), 0.0);
    for_each_head(terms_, [&](std::int64_t b, std::int64_t h) {
      const Matrix terms = head_of(terms_, b, h);
      double& sum = sums[static_cast<std::size_t>(h)];
      const std::vector<Piece> pieces = pieces_of(block_.tokens, block_.terms, b);
      for (const Piece& piece : pieces) {
        for (std::int64_t r = 0; r < piece.count; ++r) {
          const double term = static_cast<double>(*terms.template row<T>(piece.begin + r));
          sum += static_cast<double>(r + 1) * term;
        }
      }
      if (pieces.empty() || !present()) return;
      double end = 0;
      for (std::int64_t f = 0; f < after_.extent(0); ++f) end += at_end(b, h, f);
      sum += static_cast<double>(pieces.back().count) * end;
    });
    for (std::size_t h = 0; h < sums.size(); ++h) {
      *head_of(target, 0, static_cast<std::int64_t>(h)).template row<T>(0) =
          static_cast<T>(sums[h]);
    }
  }

 private:
  bool present() const { return after_.defined() && d_after_.defined(); }

  double at_end(std::int64_t b, std::int64_t h, std::int64_t f) const {
    if (!present()) return 0;
    const T* state = head_of(after_, b, h).template row<T>(f);
    const T* gradient = head_of(d_after_, b, h).template row<T>(f);
    double sum = 0;
    for (std::int64_t w = 0; w < after_.extent(3); ++w) {
      sum += static_cast<double>(state[w]) * static_cast<double>(gradient[w]);
    }
    return sum;
  }

  const LinearBlock& block_;
  const Tensor &terms_, &after_, &d_after_;
};

}  // namespace

void CpuKernels::do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                                      const LinearTerms& terms) {
  visit_accumulator(into.dtype(), [&]<class T>() {
    Accumulation<T> accumulation(into, terms);
    for (const StateSpan& span : spans) accumulation.add(span);
  });
}

void CpuKernels::do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) {
  visit_accumulator(sums.dtype(), [&]<class T>() {
    visit_float(out.dtype(), [&]<class S>() {
      for_each_head(out, [&](std::int64_t b, std::int64_t h) {
        output_rows<T, S>(head_of(out, b, h), head_of(sums, b, h), epsilon);
      });
    });
  });
}

void CpuKernels::do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out,
                                           const Tensor& sums, double epsilon) {
  visit_accumulator(sums.dtype(), [&]<class T>() {
    visit_float(d_out.dtype(), [&]<class S>() {
      for_each_head(d_out, [&](std::int64_t b, std::int64_t h) {
        output_backward_rows<T, S>(head_of(d_sums, b, h), head_of(d_out, b, h), head_of(sums, b, h),
                                   epsilon);
      });
    });
  });
}

void CpuKernels::do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms,
                                   const Tensor& after, const Tensor& d_after,
                                   const Tensor& d_log_decay) {
  visit_accumulator(decay_terms.dtype(), [&]<class T>() {
    const DecayGradients<T> gradients(block, decay_terms, after, d_after);
    if (decay_of(block.terms.module) == Decay::kPerChannel) {
      gradients.per_channel(d_log_decay);
    } else {
      gradients.per_head(d_log_decay);
    }
  });
}

}  // namespace sp
