// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/cpu_memory.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace sp {
namespace {

constexpr std::int64_t kAlignment = 64;  // one cache line and one AVX-512 vector
constexpr std::byte kPoison{0xff};       // all ones is a NaN in f64, f32, f16 and bf16
constexpr std::byte kCanary{0xa5};

std::int64_t padded(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment + 2 * kAlignment;
}

}  // namespace

std::byte* CpuMemory::acquire(std::int64_t bytes, const char* /*name*/) {
  const auto total = static_cast<std::size_t>(padded(bytes));
  auto* base = static_cast<std::byte*>(::operator new(total, std::align_val_t{kAlignment}));
  if (fence_ == Fence::kPoisonAndCanary) {
    std::memset(base, static_cast<int>(kCanary), total);
    std::memset(base + kAlignment, static_cast<int>(kPoison), static_cast<std::size_t>(bytes));
  }
  return base + kAlignment;
}

void CpuMemory::release(std::byte* data, std::int64_t bytes) noexcept {
  std::byte* base = data - kAlignment;
  if (fence_ == Fence::kPoisonAndCanary) {
    const auto intact = [](std::byte b) { return b == kCanary; };
    const bool before = std::all_of(base, data, intact);
    const bool after = std::all_of(data + bytes, base + padded(bytes), intact);
    if (!before || !after) ++broken_fences_;
  }
  ::operator delete(base, std::align_val_t{kAlignment});
}

void CpuMemory::check_fences() const {
  SP_CHECK(broken_fences_ == 0, "bytes were written outside a tensor");
}

void CpuMemory::upload(const Tensor& tensor, const void* host) {
  SP_CHECK(tensor.contiguous(), "upload needs a contiguous tensor");
  if (tensor.bytes() > 0)
    std::memcpy(tensor.data(), host, static_cast<std::size_t>(tensor.bytes()));
}

void CpuMemory::download(void* host, const Tensor& tensor) const {
  SP_CHECK(tensor.contiguous(), "download needs a contiguous tensor");
  if (tensor.bytes() > 0)
    std::memcpy(host, tensor.data(), static_cast<std::size_t>(tensor.bytes()));
}

}  // namespace sp
