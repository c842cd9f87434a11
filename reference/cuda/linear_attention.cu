// Linear attention by its recurrence, one head after the other: one thread per element of a state
// walks along the tokens, then one kernel per equation. reference/README.md has the mathematics and
// the symbols.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/cuda/arrays.cuh"
#include "reference/cuda/features.cuh"
#include "reference/cuda/reference_cuda.hpp"

namespace sp::SP_GPU::reference {
namespace {

// The borders between the tokens of one head: j is the border of tokens j - 1 and j.
template <class T>
struct Borders {
  Index N;
  Global<const int> ids;      // null: one document
  Global<const T> log_decay;  // null: no decay
  Index decay_stride[2];      // by token and channel

  __device__ bool joined(Index j) const {
    return j > 0 && j < N && (!ids || ids.load(j - 1) == ids.load(j));
  }
  // What a state keeps of channel f; 0 between documents.
  __device__ T kept(Index j, Index f) const {
    if (!joined(j)) return 0;
    return log_decay ? std::exp(log_decay.load(j * decay_stride[0] + f * decay_stride[1])) : T{1};
  }
};

enum class Order { kForth, kBack };

// S_j[f, w] after token j in the given order: what reached it, plus x_jf y_jw. One thread per [f, w].
template <class T>
__global__ void sweep(Matrix<T> state, Global<T> states, Matrix<const T> x, Matrix<const T> y,
                      Borders<T> borders, Order order) {
  const Element at(state);
  if (!at.inside) return;
  T s = 0;
  for (Index n = 0; n < x.rows; ++n) {
    const Index j = order == Order::kForth ? n : x.rows - 1 - n;
    s *= borders.kept(order == Order::kForth ? j : j + 1, at.i);
    s += x(j, at.i) * y(j, at.c);
    states.store((j * x.columns + at.i) * y.columns + at.c, s);
  }
}

// All states of one head, [N, F, W], in one order.
template <class T>
struct States {
  Global<const T> data;  // null: none
  Index F, W;

  __device__ T operator()(Index j, Index f, Index w) const {
    return data.load((j * F + f) * W + w);
  }
};

// The state that token j meets: in one order with its own share, in the other, if there is one,
// without it and decayed on the way.
template <class T>
struct Met {
  States<T> own, other;
  Order order;  // of own
  Borders<T> borders;

  __device__ T operator()(Index j, Index f, Index w) const {
    const T state = own(j, f, w);
    if (!other.data) return state;
    const Index border = order == Order::kForth ? j + 1 : j;
    const Index neighbour = order == Order::kForth ? j + 1 : j - 1;
    return borders.joined(border) ? state + borders.kept(border, f) * other(neighbour, f, w)
                                  : state;
  }
};

// y_jw (+)= sum over f of x_jf M_j[f, w]; y may be narrower than the state
template <class T>
__global__ void read_columns(Matrix<T> y, Matrix<const T> x, Met<T> met, bool accumulate) {
  const Element at(y);
  if (!at.inside) return;
  T sum = accumulate ? y(at.i, at.c) : T{0};
  for (Index f = 0; f < x.columns; ++f) sum += x(at.i, f) * met(at.i, f, at.c);
  y.store(at.i, at.c, sum);
}

// y_jf = sum over w of M_j[f, w] x_jw
template <class T>
__global__ void read_rows(Matrix<T> y, Matrix<const T> x, Met<T> met) {
  const Element at(y);
  if (!at.inside) return;
  T sum = 0;
  for (Index w = 0; w < x.columns; ++w) sum += met(at.i, at.c, w) * x(at.i, w);
  y.store(at.i, at.c, sum);
}

// v with a column of ones behind, if W > E
template <class T>
__global__ void values(Matrix<T> y, Matrix<const T> v) {
  const Element at(y);
  if (at.inside) y.store(at.i, at.c, at.c < v.columns ? v(at.i, at.c) : T{1});
}

// The denominator of a row of sums z [N, W]; 1 without normaliser.
template <class T>
__device__ T denominator(Matrix<const T> z, Index j, Index E, T epsilon) {
  return z.columns > E ? z(j, E) + epsilon : T{1};
}

template <class T>
__global__ void normalise(Matrix<T> out, Matrix<const T> z, T epsilon) {
  const Element at(out);
  if (at.inside) out.store(at.i, at.c, z(at.i, at.c) / denominator(z, at.i, out.columns, epsilon));
}

// dz_j = (d_out_j, -<d_out_j, out_j>) / denominator
template <class T>
__global__ void sum_gradients(Matrix<T> d_z, Matrix<const T> d_out, Matrix<const T> out,
                              Matrix<const T> z, T epsilon) {
  const Element at(d_z);
  if (!at.inside) return;
  const T numerator = at.c < out.columns ? d_out(at.i, at.c) : -dot(d_out, at.i, out, at.i);
  d_z.store(at.i, at.c, numerator / denominator(z, at.i, out.columns, epsilon));
}

// The state before a border meets the state behind it: dg_jf = a_jf sum over w of S_{j-1} T_j.
template <class T>
__device__ T border_gradient(Index j, Index f, States<T> before, States<T> behind,
                             Borders<T> borders) {
  if (!borders.joined(j)) return 0;
  T sum = 0;
  for (Index w = 0; w < before.W; ++w) sum += before(j - 1, f, w) * behind(j, f, w);
  return borders.kept(j, f) * sum;
}

// Of every token and channel.
template <class T>
__global__ void add_border_gradients(Matrix<T> d_g, States<T> before, States<T> behind,
                                     Borders<T> borders) {
  const Element at(d_g);
  if (at.inside) d_g.add(at.i, at.c, border_gradient(at.i, at.c, before, behind, borders));
}

// y_c += sum over rows of x
template <class T>
__global__ void add_column_sums(Matrix<T> y, Matrix<const T> x) {
  const Element at(y);
  if (!at.inside) return;
  T sum = 0;
  for (Index i = 0; i < x.rows; ++i) sum += x(i, at.c);
  y.add(0, at.c, sum);
}

// ---- Host side -----------------------------------------------------------------------------------

// Queries or keys as the feature map takes them, of one head at a time.
template <class T>
class Mapped {
 public:
  Mapped(Map map, Index N, const Array<T>& gamma, const Array<T>& beta, T factor)
      : map_(map),
        gamma_(gamma),
        beta_(beta),
        factor_(factor),
        normal_(N * map.D),
        d_normal_(N * map.D),
        phi_(N * map.features()),
        d_phi_(N * map.features()),
        N_(N) {}

  Matrix<T> phi() const { return phi_.matrix(N_, map_.features()); }
  Matrix<T> d_phi() const { return d_phi_.matrix(N_, map_.features()); }

  void apply(Matrix<T> x) {
    if (is_normed()) each_element(normal(), &layer_norm<T>, x, row(gamma_), row(beta_));
    each_element(phi(), &features<T>, is_normed() ? normal() : x, map_, factor_);
  }
  // From d_phi to d_x, d_gamma and d_beta.
  void add_gradients(Matrix<T> d_x, Matrix<T> x, const Array<T>& d_gamma, const Array<T>& d_beta) {
    if (!is_normed()) {
      each_element(d_x, &add_feature_gradients<T>, d_phi(), x, map_, factor_);
      return;
    }
    const Matrix<T> d_normal = d_normal_.matrix(N_, map_.D);
    d_normal_.clear();
    each_element(d_normal, &add_feature_gradients<T>, d_phi(), normal(), map_, factor_);
    each_element(d_x, &add_layer_norm_gradients<T>, d_normal, x, row(gamma_));
    each_element(row(d_gamma), &add_gamma_gradients<T>, d_normal, x);
    each_element(row(d_beta), &add_beta_gradients<T>, d_normal);
  }

 private:
  bool is_normed() const { return map_.module == Module::kRebased; }
  Matrix<T> normal() const { return normal_.matrix(N_, map_.D); }
  Matrix<T> row(const Array<T>& parameter) const { return parameter.matrix(1, map_.D); }

  Map map_;
  const Array<T>&gamma_, &beta_;
  T factor_;
  Array<T> normal_, d_normal_, phi_, d_phi_;
  Index N_;
};

// Everything of linear attention but Based's window.
template <class T>
Outputs recurrence(const Problem& problem, const Inputs& inputs) {
  const auto [B, N, H, G, D, E] = problem.shape;
  const Module module = problem.module.value();
  const Decay decay = decay_of(module);
  const Map map{module, D};
  const Index F = map.features(), W = E + (is_normalised(module) ? 1 : 0);
  const bool backward = !inputs.d_out.absent(), both = !problem.mask.causal;
  const T epsilon = static_cast<T>(problem.epsilon);

  const Array<T> q(inputs.q), k(inputs.k), v(inputs.v), d_out(inputs.d_out);
  const Array<T> gamma(inputs.gamma), beta(inputs.beta), log_decay(inputs.log_decay);
  const Array<int> ids(problem.mask.segment_ids);
  const Array<T> out(B * N * H * E), d_q(B * N * H * D), d_k(B * N * G * D), d_v(B * N * G * E);
  const Array<T> d_log_decay(inputs.log_decay.size()), d_gamma(D), d_beta(D);
  // Of one head.
  Mapped<T> queries(map, N, gamma, beta, static_cast<T>(problem.scale));
  Mapped<T> keys(map, N, gamma, beta, T{1});
  const Array<T> v_array(N * W), z_array(N * W), d_z_array(N * W);
  const bool per_head = decay == Decay::kPerHead;
  const Array<T> d_border(per_head ? N * F : 0), d_channel(per_head ? F : 0);
  const Matrix<T> v_bar = v_array.matrix(N, W), z = z_array.matrix(N, W);
  const Matrix<T> d_z = d_z_array.matrix(N, W);
  const Matrix<T> state({}, F, W, W);  // its extents only
  const Array<T> keys_forth(N * F * W), keys_back(both ? N * F * W : 0);
  const Array<T> queries_back(N * F * W), queries_forth(both ? N * F * W : 0);
  const auto states = [&](const Array<T>& array) { return States<T>{array.data(), F, W}; };

  for (Index b = 0; b < B; ++b) {
    for (Index h = 0; h < H; ++h) {
      const Index g = h / (H / G);
      Borders<T> borders{N, {}, {}, {0, 0}};
      if (!problem.mask.segment_ids.empty()) borders.ids = ids.data() + b * N;
      if (decay == Decay::kPerHead) borders.log_decay = log_decay.data() + h;
      if (decay == Decay::kPerChannel)
        borders = {N, borders.ids, log_decay.data() + (b * N * H + h) * D, {H * D, 1}};
      const auto sweep_over = [&](const Array<T>& result, Matrix<T> x, Matrix<T> y, Order order) {
        each_element(state, &sweep<T>, result.data(), x, y, borders, order);
      };

      const Matrix<T> q_h = q.head(b, h, N, H, D), k_g = k.head(b, g, N, G, D);
      const Matrix<T> out_h = out.head(b, h, N, H, E);
      queries.apply(q_h);
      keys.apply(k_g);
      each_element(v_bar, &values<T>, v.head(b, g, N, G, E));
      sweep_over(keys_forth, keys.phi(), v_bar, Order::kForth);
      if (both) sweep_over(keys_back, keys.phi(), v_bar, Order::kBack);
      const Met<T> met{states(keys_forth), states(keys_back), Order::kForth, borders};
      each_element(z, &read_columns<T>, queries.phi(), met, false);
      each_element(out_h, &normalise<T>, z, epsilon);
      if (!backward) continue;

      each_element(d_z, &sum_gradients<T>, d_out.head(b, h, N, H, E), out_h, z, epsilon);
      sweep_over(queries_back, queries.phi(), d_z, Order::kBack);
      if (both) sweep_over(queries_forth, queries.phi(), d_z, Order::kForth);
      const Met<T> d_met{states(queries_back), states(queries_forth), Order::kBack, borders};
      each_element(queries.d_phi(), &read_rows<T>, d_z, met);
      each_element(keys.d_phi(), &read_rows<T>, v_bar, d_met);
      each_element(d_v.head(b, g, N, G, E), &read_columns<T>, keys.phi(), d_met, true);
      queries.add_gradients(d_q.head(b, h, N, H, D), q_h, d_gamma, d_beta);
      keys.add_gradients(d_k.head(b, g, N, G, D), k_g, d_gamma, d_beta);

      // Per channel: d_log_decay itself. Per head: its summands, of which the sum is taken in two
      // steps, so that no thread walks along all tokens and channels.
      const Matrix<T> d_gate =
          decay == Decay::kPerChannel ? d_log_decay.head(b, h, N, H, D) : d_border.matrix(N, F);
      const auto decay_gradient = [&](const Array<T>& before, const Array<T>& behind) {
        if (decay != Decay::kNone)
          each_element(d_gate, &add_border_gradients<T>, states(before), states(behind), borders);
      };
      d_border.clear(), d_channel.clear();
      decay_gradient(keys_forth, queries_back);
      if (both) decay_gradient(queries_forth, keys_back);
      if (decay != Decay::kPerHead) continue;
      each_element(d_channel.matrix(1, F), &add_column_sums<T>, d_gate);
      each_element(d_log_decay.head(0, h, 1, H, 1), &add_column_sums<T>, d_channel.matrix(F, 1));
    }
  }

  Outputs result;
  result.out = out.download({B, N, H, E});
  if (!backward) return result;
  result.d_q = d_q.download({B, N, H, D});
  result.d_k = d_k.download({B, N, G, D});
  result.d_v = d_v.download({B, N, G, E});
  if (decay != Decay::kNone) result.d_log_decay = d_log_decay.download(inputs.log_decay.shape());
  if (module != Module::kRebased) return result;
  result.d_gamma = d_gamma.download({D});
  result.d_beta = d_beta.download({D});
  return result;
}

// Softmax attention over Based's window, added to every result.
void add_window(const Problem& problem, const Inputs& inputs, DType arithmetic, Outputs& result) {
  Problem window = problem;
  window.module.reset();
  window.scale = default_scale(problem.shape);
  const Outputs softmax = attention(window, inputs, arithmetic);
  for (const auto tensor : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
    for (Index n = 0; n < (result.*tensor).size(); ++n)
      (result.*tensor).set(n, (result.*tensor).at(n) + (softmax.*tensor).at(n));
}

}  // namespace

Outputs linear_attention(const Problem& problem, const Inputs& inputs, DType arithmetic) {
  SP_CHECK(arithmetic == DType::kF64 || arithmetic == DType::kF32, "arithmetic is f32 or f64");
  Outputs result = arithmetic == DType::kF64 ? recurrence<double>(problem, inputs)
                                             : recurrence<float>(problem, inputs);
  if (problem.mask.window > 0) add_window(problem, inputs, arithmetic, result);
  return result;
}

}  // namespace sp::SP_GPU::reference
