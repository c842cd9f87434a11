// Editing tensors element by element on the host: what faults do to data. Slow and simple; tests
// only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <vector>

#include "harness/mutants/host_window.hpp"
#include "optimized/kernels/kernels.hpp"
#include "optimized/memory.hpp"

namespace sp {

inline std::byte* first_byte(const Tensor& tensor, bool writes) {
  if (host_window == nullptr || tensor.elements() == 0) return tensor.data();
  std::int64_t last = 0;  // element
  for (int axis = 0; axis < 4; ++axis) last += (tensor.extent(axis) - 1) * tensor.stride(axis);
  const auto size = static_cast<std::int64_t>(size_of(tensor.dtype()));
  return host_window(tensor, (last + 1) * size, writes);
}

// f(reference to the element) over all elements in row-major order, as their C++ type.
template <class F>
void each_element(const Tensor& tensor, F&& f, bool writes = true) {
  visit_dtype(tensor.dtype(), [&]<class T>() {
    const Tensor::Extents &n = tensor.shape(), &stride = tensor.strides();
    T* first = reinterpret_cast<T*>(first_byte(tensor, writes));
    for (std::int64_t i = 0; i < n[0]; ++i) {
      for (std::int64_t j = 0; j < n[1]; ++j) {
        for (std::int64_t k = 0; k < n[2]; ++k) {
          for (std::int64_t l = 0; l < n[3]; ++l) {
            f(first[i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3]]);
          }
        }
      }
    }
  });
}

inline std::vector<double> values_of(const Tensor& tensor) {
  std::vector<double> values;
  each_element(
      tensor, [&](auto& element) { values.push_back(static_cast<double>(widen(element))); }, false);
  return values;
}

inline void assign(const Tensor& tensor, const std::vector<double>& values) {
  std::size_t i = 0;
  each_element(tensor, [&]<class T>(T& element) { element = narrow<T>(values[i++]); });
}

inline void round_to(const Tensor& tensor, DType storage) {
  visit_dtype(storage, [&]<class S>() {
    each_element(tensor, [&]<class T>(T& element) {
      element = narrow<T>(widen(narrow<S>(static_cast<double>(widen(element)))));
    });
  });
}

inline Tensor copy_of(Memory& memory, const Tensor& tensor) {
  const Tensor copy = memory.allocate(tensor.dtype(), tensor.shape(), tensor.name());
  assign(copy, values_of(tensor));
  return copy;
}

inline Tensor zeros_like(Memory& memory, const Tensor& tensor) {
  const Tensor zeros = memory.allocate(tensor.dtype(), tensor.shape(), tensor.name());
  assign(zeros, std::vector<double>(static_cast<std::size_t>(tensor.elements())));
  return zeros;
}

inline void multiply(const Tensor& tensor, double factor) {
  each_element(tensor, [&]<class T>(T& element) {
    element = narrow<T>(factor * static_cast<double>(widen(element)));
  });
}

inline void add_scaled(const Tensor& into, const Tensor& more, double factor) {
  std::vector<double> sum = values_of(into);
  const std::vector<double> addends = values_of(more);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += factor * addends[i];
  assign(into, sum);
}

// exp(log_decay) of every query head; empty without one decay per head.
inline std::vector<double> decays_per_head(const LinearTerms& terms) {
  std::vector<double> decays;
  if (decay_of(terms.module) != Decay::kPerHead) return decays;
  for (const double log_decay : values_of(terms.log_decay)) decays.push_back(std::exp(log_decay));
  return decays;
}

// One row (token, batch, head) of a partial result.
class Row {
 public:
  Row(const Partial& partial, std::int64_t i, std::int64_t b, std::int64_t h)
      : out_(partial.out.slice(0, i, i + 1).slice(1, b, b + 1).slice(2, h, h + 1)),
        lse_(partial.lse.slice(0, i, i + 1).slice(1, b, b + 1).slice(2, h, h + 1)) {}
  double lse() const { return values_of(lse_).front(); }
  void set_lse(double value) const { assign(lse_, {value}); }
  void scale(double factor) const {
    std::vector<double> out = values_of(out_);
    for (double& x : out) x *= factor;
    assign(out_, out);
  }
  void blend(const Row& other, double weight) const {  // out += weight (other - out)
    std::vector<double> out = values_of(out_);
    const std::vector<double> more = values_of(other.out_);
    for (std::size_t e = 0; e < out.size(); ++e) out[e] += weight * (more[e] - out[e]);
    assign(out_, out);
  }

 private:
  Tensor out_, lse_;
};

template <class F>
void each_row(const Partial& a, const Partial& b, F&& f) {
  for (std::int64_t i = 0; i < a.out.extent(0); ++i) {
    for (std::int64_t j = 0; j < a.out.extent(1); ++j) {
      for (std::int64_t h = 0; h < a.out.extent(2); ++h) f(Row(a, i, j, h), Row(b, i, j, h));
    }
  }
}

}  // namespace sp
