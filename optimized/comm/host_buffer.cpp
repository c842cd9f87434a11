// Storage that owns its bytes, or borrows them from another tensor.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/host_buffer.hpp"

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

}  // namespace sp
