// Copies of a kernel's operands in double, as they are or each off by a rounding.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "harness/generate/values.hpp"
#include "harness/mutants/tensor_edits.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

class Twins {
  // Twins are no tensors of the device.
  template <class F>
  static auto on_host(F&& f) {
    const HostWindow window = std::exchange(host_window, nullptr);
    auto result = f();
    host_window = window;
    return result;
  }

 public:
  // strays: the largest relative error of an operand, 0: none.
  Twins(Memory& memory, double strays, std::uint64_t seed)
      : memory_(memory), strays_(strays), random_(seed) {}

  // One twin per window, so that what is read and written stays one.
  Tensor operator()(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    const auto [found, fresh] =
        twins_.try_emplace({tensor.data(), tensor.shape(), tensor.strides()});
    if (fresh) found->second = twin_of(tensor);
    return found->second;
  }

  // Of a tensor's twin, whatever the kernel made of it.
  std::vector<double> values(const Tensor& tensor) {
    if (!tensor.defined()) return {};
    const Tensor twin = (*this)(tensor);
    return on_host([&] { return values_of(twin); });
  }

 private:
  Tensor twin_of(const Tensor& tensor) {
    const bool whole = tensor.dtype() == DType::kI32;
    const Tensor twin =
        memory_.allocate(whole ? DType::kI32 : DType::kF64, tensor.shape(), tensor.name());
    std::vector<double> values = values_of(tensor);
    if (!whole && strays_ > 0)
      for (double& value : values) value *= 1 + strays_ * (2 * random_.uniform() - 1);
    return on_host([&] {
      assign(twin, values);
      return twin;
    });
  }

  Memory& memory_;
  const double strays_;
  Stream random_;
  std::map<std::tuple<const std::byte*, Tensor::Extents, Tensor::Extents>, Tensor> twins_;
};

// What blocks refer to, for as long as a call takes.
struct AttentionTwin {
  AttentionTwin(const AttentionBlock& b, Twins& twins)
      : mask{b.mask.band, twins(b.mask.segments)},
        block{twins(b.q), twins(b.k), twins(b.v), b.q_tokens, b.k_tokens, mask, b.scale} {}
  MaskTerms mask;
  AttentionBlock block;
};

inline LinearTerms twin_of(const LinearTerms& terms, Twins& twins) {
  LinearTerms twin = terms;
  for (Tensor* tensor : {&twin.log_decay, &twin.gamma, &twin.beta, &twin.segments})
    *tensor = twins(*tensor);
  return twin;
}

struct LinearTwin {
  LinearTwin(const LinearBlock& b, Twins& twins)
      : terms(twin_of(b.terms, twins)),
        block{twins(b.q), twins(b.k), twins(b.v), b.tokens, terms} {}
  LinearTerms terms;
  LinearBlock block;
};

}  // namespace sp
