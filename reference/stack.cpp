// SPDX-License-Identifier: Apache-2.0
#include "reference/stack.hpp"

#include "reference/evaluate.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {
namespace {

// Copies one layer's heads [B, N, G, .] out of `all` [B, N, L G, .], widened.
HostTensor heads_of(const HostTensor& all, Index layer, Index G) {
  const Index rows = all.extent(0) * all.extent(1), heads = all.extent(2), size = all.extent(3);
  HostTensor one(DType::kF64, {all.extent(0), all.extent(1), G, size});
  for (Index row = 0; row < rows; ++row)
    for (Index n = 0; n < G * size; ++n)
      one.set(row * G * size + n, all.at((row * heads + layer * G) * size + n));
  return one;
}

void put_heads(HostTensor& all, Index layer, Index G, const HostTensor& one) {
  const Index rows = all.extent(0) * all.extent(1), heads = all.extent(2), size = all.extent(3);
  for (Index row = 0; row < rows; ++row)
    for (Index n = 0; n < G * size; ++n)
      all.set((row * heads + layer * G) * size + n, one.at(row * G * size + n));
}

void add(HostTensor& sum, const HostTensor& part) {
  if (part.absent()) return;
  if (sum.absent()) sum = HostTensor(DType::kF64, part.shape());
  add_scaled(sum.as<double>().data(), 1, part.as<double>().data(), part.size());
}

}  // namespace

Outputs stack(const Problem& problem, const Inputs& inputs) {
  return stack(problem, inputs, evaluate);
}

Outputs stack(const Problem& problem, const Inputs& inputs, const Layer& evaluate_layer) {
  const auto [B, N, H, G, D, E] = problem.shape;
  const Index layers = problem.layer_count();
  std::vector<Inputs> inputs_of;
  Outputs result;
  result.out = inputs.q.cast(DType::kF64);
  for (Index layer = 0; layer < layers; ++layer) {
    Inputs& of = inputs_of.emplace_back();
    of.q = std::move(result.out);
    of.k = heads_of(inputs.k, layer, G);
    of.v = heads_of(inputs.v, layer, G);
    of.log_decay = inputs.log_decay;
    result.out = evaluate_layer(layer_of(problem, layer), of).out;
  }
  if (inputs.d_out.absent()) return result;

  result.d_k = HostTensor(DType::kF64, {B, N, layers * G, D});
  result.d_v = HostTensor(DType::kF64, {B, N, layers * G, E});
  if (decay_of(*problem.module) != Decay::kNone)
    result.d_log_decay = HostTensor(DType::kF64, inputs.log_decay.shape());
  HostTensor d_out = inputs.d_out.cast(DType::kF64);
  for (Index layer = layers - 1; layer >= 0; --layer) {
    Inputs& of = inputs_of[static_cast<std::size_t>(layer)];
    of.d_out = std::move(d_out);
    Outputs one = evaluate_layer(layer_of(problem, layer), of);
    put_heads(result.d_k, layer, G, one.d_k);
    put_heads(result.d_v, layer, G, one.d_v);
    add(result.d_log_decay, one.d_log_decay);
    d_out = std::move(one.d_q);
  }
  result.d_q = std::move(d_out);
  return result;
}

}  // namespace sp::reference
