// Host memory, 64-byte aligned; in tests poisoned with NaN and fenced with canaries.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/memory.hpp"

namespace sp {

enum class Fence : std::uint8_t { kOff, kPoisonAndCanary };

class CpuMemory final : public Memory {
 public:
  explicit CpuMemory(Fence fence = Fence::kOff) : fence_(fence) {}

  void upload(const Tensor& tensor, const void* host) override;
  void download(void* host, const Tensor& tensor) const override;

  // Throws Error(kInternal) if any released tensor had bytes written outside its bounds.
  void check_fences() const;

 protected:
  std::byte* acquire(std::int64_t bytes, const char* name) override;
  void release(std::byte* data, std::int64_t bytes) noexcept override;

 private:
  Fence fence_;
  std::int64_t broken_fences_ = 0;
};

}  // namespace sp
