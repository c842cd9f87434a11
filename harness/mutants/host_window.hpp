// Where the host sees the elements of a tensor, for faults that edit data.
//
// On the CPU that is where they are. A back-end whose tensors live on a device lends the threads of
// its ranks a window for the length of a run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/tensor.hpp"

namespace sp {

// The host address of `bytes` bytes from the tensor's first element on, when all work on them is
// done; valid until the next kernel.
using HostWindow = std::byte* (*)(const Tensor& tensor, std::int64_t bytes, bool writes);
inline thread_local HostWindow host_window = nullptr;  // null: the address itself

}  // namespace sp
