// Memory of one rank: allocates tensors and keeps the ledger of live and peak bytes.
//
// Used by one rank only; tensors must not outlive their Memory. Contents of a fresh tensor are
// unspecified.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "optimized/tensor.hpp"

namespace sp {

class Memory {
 public:
  virtual ~Memory() = default;

  Tensor allocate(DType dtype, Tensor::Extents shape, const char* name);

  // Whole-tensor copies between the host and this memory; the tensor is contiguous, the host side
  // is row-major.
  virtual void upload(const Tensor& tensor, const void* host) = 0;
  virtual void download(void* host, const Tensor& tensor) const = 0;

  std::int64_t live_bytes() const { return live_bytes_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }
  void reset_peak() { peak_bytes_ = live_bytes_; }

 protected:
  // Zero bytes are legal. acquire may return null where nothing is stored; `name` is the tensor's,
  // for complaints.
  virtual std::byte* acquire(std::int64_t bytes, const char* name) = 0;
  virtual void release(std::byte* data, std::int64_t bytes) noexcept = 0;
  // A tensor came to live (bytes > 0) or went (bytes < 0); the ledger says so already.
  virtual void changed(const char*, std::int64_t) {}

 private:
  std::int64_t live_bytes_ = 0;
  std::int64_t peak_bytes_ = 0;
};

}  // namespace sp
