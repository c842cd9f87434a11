// SPDX-License-Identifier: Apache-2.0
#include "optimized/memory.hpp"

#include <algorithm>

namespace sp {

Tensor Memory::allocate(DType dtype, Tensor::Extents shape, const char* name) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape) {
    SP_CHECK(extent >= 0 && !__builtin_mul_overflow(bytes, extent, &bytes),
             "a tensor has a negative extent or is too large to address");
  }
  auto release = [this](Storage* storage) {
    this->release(storage->data, storage->bytes);
    live_bytes_ -= storage->bytes;
    changed(storage->name, -storage->bytes);
    delete storage;
  };
  std::byte* data = acquire(bytes, name);
  live_bytes_ += bytes;
  peak_bytes_ = std::max(peak_bytes_, live_bytes_);
  changed(name, bytes);
  return {std::shared_ptr<Storage>(new Storage{data, bytes, name}, release), dtype, shape};
}

}  // namespace sp
