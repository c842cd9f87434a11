// SPDX-License-Identifier: Apache-2.0
#include "reference/model/attention_operations.hpp"

#include "reference/evaluate.hpp"

namespace sp::reference {
namespace {

HostTensor tensor(const Values& values, std::vector<Index> shape) {
  return HostTensor::from_doubles(DType::kF64, std::move(shape), values);
}

void add_gradient(const Variable& to, const HostTensor& gradient) {
  if (!to || gradient.absent()) return;
  for (Index i = 0; i < gradient.size(); ++i) to->gradient[std::size_t(i)] += gradient.at(i);
}

}  // namespace

Variable attend(Tape& tape, const Problem& problem, const Variable& q, const Variable& k,
                const Variable& v, const LinearParameters& parameters) {
  const auto [B, N, H, G, D, E] = problem.shape;
  SP_CHECK(q->rows == B * N && q->columns == H * D && k->columns == G * D && v->columns == G * E,
           "operands of attention in the problem's shape");
  const std::vector<Index> out_shape{B, N, H, E};
  Inputs inputs;
  inputs.q = tensor(q->value, {B, N, H, D});
  inputs.k = tensor(k->value, {B, N, G, D});
  inputs.v = tensor(v->value, {B, N, G, E});
  if (const Variable& decay = parameters.log_decay) {
    const bool per_head = decay_of(problem.module.value()) == Decay::kPerHead;
    inputs.log_decay =
        tensor(decay->value, per_head ? std::vector<Index>{H} : std::vector<Index>{B, N, H, D});
  }
  if (parameters.gamma) {
    inputs.gamma = tensor(parameters.gamma->value, {D});
    inputs.beta = tensor(parameters.beta->value, {D});
  }
  const Variable out = make(q->rows, H * E);
  const Outputs forward = evaluate(problem, inputs);
  for (Index i = 0; i < forward.out.size(); ++i) out->value[std::size_t(i)] = forward.out.at(i);
  tape.add([=] {
    Inputs with_gradient = inputs;
    with_gradient.d_out = tensor(out->gradient, out_shape);
    const Outputs backward = evaluate(problem, with_gradient);
    add_gradient(q, backward.d_q);
    add_gradient(k, backward.d_k);
    add_gradient(v, backward.d_v);
    add_gradient(parameters.log_decay, backward.d_log_decay);
    add_gradient(parameters.gamma, backward.d_gamma);
    add_gradient(parameters.beta, backward.d_beta);
  });
  return out;
}

}  // namespace sp::reference
