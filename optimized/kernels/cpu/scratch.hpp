// Scratch memory of the kernels of one rank: a few aligned buffers that only ever grow.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace sp {

// One buffer per purpose; a kernel uses each for one thing at a time.
enum class Slot : std::uint8_t {
  kQuery,
  kKey,
  kKeyTransposed,
  kValue,
  kGradient,
  kScores,
  kScoreGradients,
  kOut,
  kKeyGradient,
  kValueGradient,
  kQueryTransposed,
  kValueTransposed,
  kGradientTransposed,
  kState,
  kFeatures,
  kDecayed,
  kReversed,
  kNormalisedQuery,
  kNormalisedKey,
  kGates,
  kQueryDecay,
  kKeyDecay,
  kBlockDecay,
  kDecayedBlocks,
  kGatedBlock,
  kCount
};

class Scratch {
 public:
  // Room for `count` elements, 64-byte aligned; contents unspecified. Valid until the next call
  // for the same slot.
  template <class T>
  T* get(Slot slot, std::int64_t count) {
    Buffer& buffer = buffers_[static_cast<std::size_t>(slot)];
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (bytes > buffer.bytes) {
      buffer.data.reset();
      buffer.data.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
      buffer.bytes = bytes;
    }
    return reinterpret_cast<T*>(buffer.data.get());
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
  };
  struct Buffer {
    std::unique_ptr<std::byte, Free> data;
    std::size_t bytes = 0;
  };
  std::array<Buffer, static_cast<std::size_t>(Slot::kCount)> buffers_;
};

}  // namespace sp
