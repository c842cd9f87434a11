// NcclCommunicator: one rank's GPU among others, through NCCL.
//
// Streams   Every communicator has a stream of its own, so two channels are two communicators. A
//           post records an event on the compute stream, which the communication stream waits for;
//           waiting for the operation makes the compute stream wait for its end. The host never
//           waits between steps.
// Groups    An exchange and an all-to-all are one NCCL group. An all-gather and a reduce-scatter of
//           equal, adjacent parts are NCCL's own; of unequal ones a group of sends and receives, or
//           of reductions. Empty messages are not sent.
// Order     Operations of one communicator run one after the other, as posted: an exchange that
//           waits holds up those after it. A message to oneself is sent and received in one
//           exchange.
// Sums      NCCL chooses the order of additions: results may differ in the last bits from the
//           other back-ends'.
// Labels    do not travel: NCCL moves bytes. They name what is in flight when a wait fails.
// Failures  are found by NcclSession::watch(), which Gpu::synchronize() calls while it waits: an
//           asynchronous NCCL error, or time_limit without the oldest operation ending, aborts all
//           communicators of the rank and throws Error(kEnvironment) with what is in flight; a
//           PeerFailure where another rank failed.
// Calls     Communicators are non-blocking: what would wait for other ranks inside NCCL (joining,
//           splitting, the first message to a peer) is asked for until it is done, under the same
//           limit. So the thread that aborts is in no call, as NCCL demands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "optimized/comm/gpu_world.hpp"
#include "optimized/kernels/cuda/gpu.hpp"

namespace sp::SP_GPU {

// NCCL's words, with the story of this rank's last error if there is one.
std::string describe(ncclResult_t status);

// Throws Error(kEnvironment) that names what failed; "in progress" is no failure.
void check(ncclResult_t status, const char* what);

// Throws Error(kEnvironment) if the NCCL of this number, 22809 for 2.28.9, cannot be trusted.
void check_version(int version);

// The identity of a new world; made by one rank, known to all before they join.
ncclUniqueId make_world_id();

// Joins as `rank` of `size` on the GPU that is current; collective. Installs the watcher of `gpu`,
// which must outlive all communicators. `peers_failed`, if given, ends all waits of this rank when
// it becomes true.
GpuWorld join_world(Gpu& gpu, const ncclUniqueId& id, int rank, int size,
                    std::chrono::milliseconds time_limit, std::shared_ptr<Traffic> traffic,
                    std::shared_ptr<const std::atomic<bool>> peers_failed = nullptr);

}  // namespace sp::SP_GPU
