// Softmax attention by its equations, one head after the other. reference/README.md has the
// mathematics and the symbols.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/cuda/arrays.cuh"
#include "reference/cuda/reference_cuda.hpp"

namespace sp::SP_GPU::reference {
namespace {

// The terms of the mask for one sequence.
struct Terms {
  bool causal;
  Index window;
  Global<const int> ids;  // null: no segments

  __device__ bool sees(Index i, Index j) const {
    if (causal && j > i) return false;
    if (window > 0 && (i > j ? i - j : j - i) >= window) return false;
    return !ids || ids.load(i) == ids.load(j);
  }
};

template <class T>
__device__ T minus_infinity() {
  return static_cast<T>(-INFINITY);
}

// s_ij = scale <q_i, k_j>; hidden: -inf
template <class T>
__global__ void scores(Matrix<T> s, Matrix<const T> q, Matrix<const T> k, T scale, Terms terms) {
  const Element at(s);
  if (!at.inside) return;
  s.store(at.i, at.c, terms.sees(at.i, at.c) ? scale * dot(q, at.i, k, at.c) : minus_infinity<T>());
}

template <class T>
__global__ void row_largest(Matrix<T> largest, Matrix<const T> s) {
  const Element at(largest);
  if (!at.inside) return;
  T value = minus_infinity<T>();
  for (Index j = 0; j < s.columns; ++j) value = s(at.i, j) > value ? s(at.i, j) : value;
  largest.store(at.i, 0, value);
}

// sum over j of exp(s_ij - largest_i); 0 where nothing is seen
template <class T>
__global__ void row_sum(Matrix<T> sum, Matrix<const T> s, Matrix<const T> largest) {
  const Element at(sum);
  if (!at.inside) return;
  T value = 0;
  for (Index j = 0; j < s.columns; ++j)
    if (s(at.i, j) > minus_infinity<T>()) value += std::exp(s(at.i, j) - largest(at.i, 0));
  sum.store(at.i, 0, value);
}

template <class T>
__global__ void log_sum_exp(Matrix<T> lse, Matrix<const T> largest, Matrix<const T> sum) {
  const Element at(lse);
  if (!at.inside) return;
  lse.store(at.i, 0,
            sum(at.i, 0) > 0 ? largest(at.i, 0) + std::log(sum(at.i, 0)) : minus_infinity<T>());
}

// p_ij = exp(s_ij - largest_i) / sum_i
template <class T>
__global__ void probabilities(Matrix<T> p, Matrix<const T> s, Matrix<const T> largest,
                              Matrix<const T> sum) {
  const Element at(p);
  if (!at.inside) return;
  const T score = s(at.i, at.c);
  p.store(at.i, at.c,
          score > minus_infinity<T>() ? std::exp(score - largest(at.i, 0)) / sum(at.i, 0) : T{0});
}

// out_ie = sum over j of p_ij v_je
template <class T>
__global__ void outputs(Matrix<T> out, Matrix<const T> p, Matrix<const T> v) {
  const Element at(out);
  if (!at.inside) return;
  T sum = 0;
  for (Index j = 0; j < v.rows; ++j) sum += p(at.i, j) * v(j, at.c);
  out.store(at.i, at.c, sum);
}

// delta_i = <d_out_i, out_i>
template <class T>
__global__ void deltas(Matrix<T> delta, Matrix<const T> d_out, Matrix<const T> out) {
  const Element at(delta);
  if (at.inside) delta.store(at.i, 0, dot(d_out, at.i, out, at.i));
}

// ds_ij = p_ij (<d_out_i, v_j> - delta_i)
template <class T>
__global__ void score_gradients(Matrix<T> ds, Matrix<const T> p, Matrix<const T> d_out,
                                Matrix<const T> v, Matrix<const T> delta) {
  const Element at(ds);
  if (!at.inside) return;
  ds.store(at.i, at.c, p(at.i, at.c) * (dot(d_out, at.i, v, at.c) - delta(at.i, 0)));
}

// d_q_ic = scale sum over j of ds_ij k_jc
template <class T>
__global__ void query_gradients(Matrix<T> d_q, Matrix<const T> ds, Matrix<const T> k, T scale) {
  const Element at(d_q);
  if (!at.inside) return;
  T sum = 0;
  for (Index j = 0; j < k.rows; ++j) sum += ds(at.i, j) * k(j, at.c);
  d_q.store(at.i, at.c, scale * sum);
}

// y_jc += factor sum over i of w_ij x_ic: d_k from ds and q, d_v from p and d_out
template <class T>
__global__ void add_key_gradients(Matrix<T> y, Matrix<const T> w, Matrix<const T> x, T factor) {
  const Element at(y);
  if (!at.inside) return;
  T sum = 0;
  for (Index i = 0; i < x.rows; ++i) sum += w(i, at.i) * x(i, at.c);
  y.add(at.i, at.c, factor * sum);
}

// x'_mc = sum over t of W_tm x_tc
template <class T>
__global__ void project(Matrix<T> projected, Matrix<const T> w, Matrix<const T> x) {
  const Element at(projected);
  if (!at.inside) return;
  T sum = 0;
  for (Index t = 0; t < x.rows; ++t) sum += w(t, at.i) * x(t, at.c);
  projected.store(at.i, at.c, sum);
}

// d_x_tc = sum over m of W_tm d_x'_mc
template <class T>
__global__ void project_back(Matrix<T> d_x, Matrix<const T> w, Matrix<const T> d_projected) {
  const Element at(d_x);
  if (!at.inside) return;
  T sum = 0;
  for (Index m = 0; m < d_projected.rows; ++m) sum += w(at.i, m) * d_projected(m, at.c);
  d_x.store(at.i, at.c, sum);
}

// d_W_tm += <x_t, d_x'_m>
template <class T>
__global__ void add_projection_gradients(Matrix<T> d_w, Matrix<const T> x,
                                         Matrix<const T> d_projected) {
  const Element at(d_w);
  if (at.inside) d_w.add(at.i, at.c, dot(x, at.i, d_projected, at.c));
}

// Keys or values as attention meets them: `rows` of `size` elements for each of G heads; projected,
// if the problem has projections.
template <class T>
class Keys {
 public:
  Keys(const Problem& problem, const HostTensor& tensor, const HostTensor& projection)
      : B_(problem.shape.B),
        N_(problem.shape.N),
        G_(problem.shape.G),
        size_(tensor.extent(3)),
        rows_(problem.projected > 0 ? problem.projected : N_),
        is_projected_(problem.projected > 0),
        own_(tensor),
        w_(projection),
        projected_(is_projected_ ? B_ * rows_ * G_ * size_ : 0),
        gradient_(B_ * rows_ * G_ * size_) {
    for (Index b = 0; is_projected_ && b < B_; ++b)
      each_element(all(projected_, b, rows_), &project<T>, weights(w_), all(own_, b, N_));
  }
  Index rows() const { return rows_; }
  Matrix<T> head(Index b, Index g) const {
    return (is_projected_ ? projected_ : own_).head(b, g, rows_, G_, size_);
  }
  Matrix<T> gradient(Index b, Index g) const { return gradient_.head(b, g, rows_, G_, size_); }

  // The gradients of the tensor and of its projection, once those of all heads are complete.
  void finish(HostTensor& d_tensor, HostTensor& d_projection) const {
    if (!is_projected_) {
      d_tensor = gradient_.download({B_, N_, G_, size_});
      return;
    }
    const Array<T> d_own(B_ * N_ * G_ * size_), d_w(N_ * rows_);
    for (Index b = 0; b < B_; ++b) {
      each_element(all(d_own, b, N_), &project_back<T>, weights(w_), all(gradient_, b, rows_));
      each_element(weights(d_w), &add_projection_gradients<T>, all(own_, b, N_),
                   all(gradient_, b, rows_));
    }
    d_tensor = d_own.download({B_, N_, G_, size_});
    d_projection = d_w.download({N_, rows_});
  }

 private:
  // All heads of sequence b, side by side.
  Matrix<T> all(const Array<T>& array, Index b, Index rows) const {
    return array.head(b, 0, rows, 1, G_ * size_);
  }
  Matrix<T> weights(const Array<T>& array) const { return array.matrix(N_, rows_); }

  Index B_, N_, G_, size_, rows_;
  bool is_projected_;
  Array<T> own_, w_, projected_, gradient_;
};

template <class T>
Outputs attention_in(const Problem& problem, const Inputs& inputs) {
  const auto [B, N, H, G, D, E] = problem.shape;
  const bool backward = !inputs.d_out.absent();
  const T scale = static_cast<T>(problem.scale);
  const Array<T> q(inputs.q), d_out(inputs.d_out);
  const Keys<T> k(problem, inputs.k, inputs.projection_k);
  const Keys<T> v(problem, inputs.v, inputs.projection_v);
  const Array<int> ids(problem.mask.segment_ids);
  const Index M = k.rows();
  const Array<T> out(B * N * H * E), lse(B * H * N), d_q(backward ? B * N * H * D : 0);
  // Of one head.
  const Array<T> s_array(N * M), p_array(N * M), ds_array(backward ? N * M : 0);
  const Array<T> largest_array(N), sum_array(N), delta_array(backward ? N : 0);
  const Matrix<T> s = s_array.matrix(N, M), p = p_array.matrix(N, M), ds = ds_array.matrix(N, M);
  const Matrix<T> largest = largest_array.matrix(N, 1), sum = sum_array.matrix(N, 1);
  const Matrix<T> delta = delta_array.matrix(N, 1);

  for (Index b = 0; b < B; ++b) {
    Terms terms{problem.mask.causal, problem.mask.window, {}};
    if (!problem.mask.segment_ids.empty()) terms.ids = ids.data() + b * N;
    for (Index h = 0; h < H; ++h) {
      const Index g = h / (H / G);
      const Matrix<T> q_h = q.head(b, h, N, H, D), out_h = out.head(b, h, N, H, E);
      each_element(s, &scores<T>, q_h, k.head(b, g), scale, terms);
      each_element(largest, &row_largest<T>, s);
      each_element(sum, &row_sum<T>, s, largest);
      each_element(lse.head(b * H + h, 0, N, 1, 1), &log_sum_exp<T>, largest, sum);
      each_element(p, &probabilities<T>, s, largest, sum);
      each_element(out_h, &outputs<T>, p, v.head(b, g));
      if (!backward) continue;
      const Matrix<T> d_out_h = d_out.head(b, h, N, H, E);
      each_element(delta, &deltas<T>, d_out_h, out_h);
      each_element(ds, &score_gradients<T>, p, d_out_h, v.head(b, g), delta);
      each_element(d_q.head(b, h, N, H, D), &query_gradients<T>, ds, k.head(b, g), scale);
      each_element(k.gradient(b, g), &add_key_gradients<T>, ds, q_h, scale);
      each_element(v.gradient(b, g), &add_key_gradients<T>, p, d_out_h, T{1});
    }
  }

  Outputs result;
  result.out = out.download({B, N, H, E});
  result.lse = lse.download({B, H, N});
  if (!backward) return result;
  result.d_q = d_q.download({B, N, H, D});
  k.finish(result.d_k, result.d_projection_k);
  v.finish(result.d_v, result.d_projection_v);
  return result;
}

}  // namespace

Outputs attention(const Problem& problem, const Inputs& inputs, DType arithmetic) {
  SP_CHECK(arithmetic == DType::kF64 || arithmetic == DType::kF32, "arithmetic is f32 or f64");
  return arithmetic == DType::kF64 ? attention_in<double>(problem, inputs)
                                   : attention_in<float>(problem, inputs);
}

}  // namespace sp::SP_GPU::reference
