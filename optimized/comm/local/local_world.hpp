// LocalWorld: ranks as threads of one process that drive GPUs, any number of them on one, without
// NCCL.
//
// Copies    Whoever posts second enqueues the copy on a stream of the receiver's communicator, behind
//           what both had enqueued before their posts, be it on one GPU or on two. So everything waits
//           for work that has been submitted already: no order of queues can hang.
// Waiting   for an operation sleeps until all its messages are enqueued, then orders the compute
//           stream after them. The host never waits for the device.
// Sums      in rank order, by a kernel: the bits of the back-ends on the CPU.
// Failures  as of a ThreadWorld: the first one ends all ranks, a time-out says of every rank what it
//           waits for, and another run may follow.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <exception>
#include <memory>

#include "optimized/comm/gpu_world.hpp"
#include "optimized/kernels/cuda/gpu.hpp"

namespace sp {
class ThreadBoard;
}

namespace sp::SP_GPU {

constexpr int kMostLocalRanks = 64;

// Throws Error(kEnvironment) that names two of the first `devices` GPUs that cannot reach each
// other's memory.
void check_reach(int devices);

class LocalWorld {
 public:
  LocalWorld(int ranks, std::chrono::milliseconds time_limit);

  // Once per rank, by its thread, whose current device is the GPU's, which the GPUs of all ranks can
  // reach; the GPU outlives the world's end that it gets. While it waits for the GPU it looks for
  // failed peers.
  GpuWorld join(Gpu& gpu, int rank, std::shared_ptr<Traffic> traffic);

  // How the thread of a rank ended. Whoever still waits for it is told.
  void finish(int rank);
  void fail(int rank, std::exception_ptr reason);
  // Throws the first failure, as "rank r: reason".
  void rethrow_failure() const;

 private:
  std::shared_ptr<ThreadBoard> board_;
};

}  // namespace sp::SP_GPU
