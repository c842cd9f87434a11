// What every family of kernels counts and shows before it runs: its flops, its bytes, its operands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "optimized/tensor.hpp"

namespace sp {

struct Charge {
  const char* kernel = "";
  std::int64_t flops = 0;
  std::int64_t bytes = 0;  // read and written once each
};

class KernelObserver {
 public:
  virtual ~KernelObserver() = default;
  virtual void before(const Charge& charge, std::span<const Tensor> reads,
                      std::span<const Tensor> writes) = 0;
};

class KernelAccount {
 public:
  virtual ~KernelAccount() = default;

  void observe(KernelObserver* observer) { observer_ = observer; }  // null: nobody
  std::int64_t flops() const { return flops_; }                     // charged so far

 protected:
  void charge(const char* kernel, std::int64_t flops, std::initializer_list<Tensor> reads,
              std::initializer_list<Tensor> writes);
  // The same for operands that may be undefined: those are not shown.
  void charge_defined(const char* kernel, std::int64_t flops, std::vector<Tensor> reads,
                      std::vector<Tensor> writes);

 private:
  KernelObserver* observer_ = nullptr;
  std::int64_t flops_ = 0;
};

}  // namespace sp
