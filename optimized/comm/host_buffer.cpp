// Storage that owns its bytes, or borrows them from another tensor.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/host_buffer.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

namespace sp {
namespace {

constexpr std::align_val_t kAlignment{64};

struct OwnedStorage : Storage {
  OwnedStorage(std::int64_t size, const char* text) {
    data = static_cast<std::byte*>(::operator new(static_cast<std::size_t>(size), kAlignment));
    bytes = size;
    name = text;
  }
  OwnedStorage(const OwnedStorage&) = delete;
  OwnedStorage& operator=(const OwnedStorage&) = delete;
  ~OwnedStorage() { ::operator delete(data, kAlignment); }
};

struct BorrowedStorage : Storage {
  explicit BorrowedStorage(const Tensor& tensor) : owner(tensor) {
    data = tensor.data();
    bytes = tensor.bytes();
    name = tensor.name();
  }
  Tensor owner;
};

// Every block is read completely before it is written.
template <class T>
void sum_in_order(T* target, const std::vector<Tensor>& sources, std::int64_t count) {
  constexpr std::int64_t kBlock = 512;
  std::array<T, kBlock> sum;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    std::copy_n(sources.front().as<T>() + begin, length, sum.begin());
    for (std::size_t source = 1; source < sources.size(); ++source) {
      const T* values = sources[source].as<T>() + begin;
      for (std::int64_t i = 0; i < length; ++i) sum[static_cast<std::size_t>(i)] += values[i];
    }
    std::copy_n(sum.begin(), length, target + begin);
  }
}

}  // namespace

Tensor host_buffer(DType dtype, Tensor::Extents shape, const char* name) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape) bytes *= extent;
  return {std::make_shared<OwnedStorage>(bytes, name), dtype, shape};
}

Tensor flat_view(const Tensor& tensor) {
  SP_CHECK(tensor.contiguous(), "only a contiguous tensor is flat");
  return {std::make_shared<BorrowedStorage>(tensor), tensor.dtype(), {tensor.elements(), 1, 1, 1}};
}

void copy_bytes(const Tensor& target, const Tensor& source) {
  SP_CHECK(target.bytes() == source.bytes(), "a copy between tensors of different sizes");
  if (target.bytes() == 0 || target.data() == source.data()) return;
  std::memmove(target.data(), source.data(), static_cast<std::size_t>(target.bytes()));
}

void sum_in_order(const Tensor& target, const std::vector<Tensor>& sources) {
  if (target.dtype() == DType::kF64) {
    sum_in_order(target.as<double>(), sources, target.elements());
  } else {
    sum_in_order(target.as<float>(), sources, target.elements());
  }
}

}  // namespace sp
