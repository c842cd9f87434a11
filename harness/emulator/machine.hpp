// The arrows between the emulator's parts: memory, streams, blocks, collectives.
//
// memory.cpp   device addresses, their backing store, and the shadow of every byte: who wrote and
//              read it last
// streams.cpp  queues of operations, executed lazily and in adversarial order by whoever waits
// block.cpp    one launch: blocks in adversarial order, lanes as fibers
// nccl.cpp     collectives as operations of streams
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "harness/emulator/emulator.hpp"
#include "harness/emulator/include/cuda_runtime.h"

namespace sp::emulator {

enum class Access : std::uint8_t { kRead, kWrite, kAtomic };

// Who touches memory: a kernel's block, or a copy or collective (block 0).
struct Accessor {
  std::uint32_t operation = 0;  // of a stream; 1, 2, ... in the order of posting
  std::uint32_t block = 0;
  int device = 0;
};

// Checks an access and returns the host address of its bytes. Throws Fault. Called for every load
// and store of every lane: the good path is short. Only from inside advance() of that operation,
// with addresses of its own device, and never for two blocks of one device at a time.
std::byte* touch(const void* device_address, std::size_t bytes, std::size_t alignment,
                 Access access, const Accessor& who);

struct KernelLaunch {
  std::string name;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  std::function<void()> body;  // the kernel with its arguments, for one thread
  Accessor who;                // block 0
  const GpuModel* model = nullptr;
  std::uint64_t seed = 0;
};
// Runs all blocks on the calling thread. Throws the first Fault, and leaves nothing running.
void run_kernel(const KernelLaunch& launch);

// What a stream executes.
class StreamOperation {
 public:
  virtual ~StreamOperation() = default;
  // Goes as far as it can without blocking; true: done. Called when everything before it on its
  // stream and everything that the stream waits for is done. Throws Fault.
  virtual bool advance(const Accessor& who) = 0;
  virtual std::string describe() const = 0;  // for dumps: "kernel merge", "receive 512 f32 from 3"
};
// Returns the operation's number; 0 if the device's error sticks, the operation is then dropped.
// Throws Fault(kApi) if that is no stream of the current device. Call it without locks of yours:
// advance() runs under the device's lock, on whatever host thread waits.
std::uint32_t enqueue(cudaStream_t stream, std::unique_ptr<StreamOperation> operation);

// Wakes every host thread that waits: something elsewhere may let its streams go on.
void notify_all_hosts();

// Records a fault for take_fault() and for cudaGetErrorString().
void record_fault(const Fault& fault);

// Throws Fault if the calling thread has opened an NCCL group and not closed it.
void check_groups_closed(const char* call);

// Whether this primitive is sabotaged now, in this kernel.
bool sabotaged(const char* id);

}  // namespace sp::emulator
