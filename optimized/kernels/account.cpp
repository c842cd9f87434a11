// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/account.hpp"

namespace sp {

void KernelAccount::charge(const char* kernel, std::int64_t flops,
                           std::initializer_list<Tensor> reads,
                           std::initializer_list<Tensor> writes) {
  flops_ += flops;
  if (observer_ == nullptr) return;
  Charge charge{kernel, flops, 0};
  for (const auto& tensors : {reads, writes}) {
    for (const Tensor& tensor : tensors) charge.bytes += tensor.bytes();
  }
  observer_->before(charge, reads, writes);
}

void KernelAccount::charge_defined(const char* kernel, std::int64_t flops,
                                   std::vector<Tensor> reads, std::vector<Tensor> writes) {
  flops_ += flops;
  if (observer_ == nullptr) return;
  Charge charge{kernel, flops, 0};
  for (std::vector<Tensor>* tensors : {&reads, &writes}) {
    std::erase_if(*tensors, [](const Tensor& tensor) { return !tensor.defined(); });
    for (const Tensor& tensor : *tensors) charge.bytes += tensor.bytes();
  }
  observer_->before(charge, reads, writes);
}

}  // namespace sp
