// A request of communicator.hpp in the words of NCCL.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/comm/nccl/nccl_session.hpp"

namespace sp::SP_GPU {

// Enqueues the request on the channel's stream as one NCCL operation, or one group of them. Which
// ones follows from the shapes, which all ranks know, and from who shares storage, which the text
// of the algorithm decides: never from addresses, which differ between ranks.
void enqueue(const NcclChannel& channel, const Request& request);

}  // namespace sp::SP_GPU
