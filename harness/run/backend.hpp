// Back-ends of the harness: where the ranks come from, and what their communicator, kernels and
// memory are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "harness/compare/softmax_truth.hpp"
#include "optimized/comm/communicator.hpp"
#include "optimized/kernels/cpu/cpu_memory.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

// What a test puts between an algorithm and its machine.
struct Rig {
  bool checked = false;                // find buffers touched in flight
  std::optional<std::uint64_t> chaos;  // delay and reorder completion, from this seed
  Fence fence = Fence::kOff;           // poison fresh memory, fence it with canaries
  // Fault injection: wrap what a rank gets. Null: nothing. The memory is a second one of the rank,
  // on no ledger.
  std::function<std::unique_ptr<Communicator>(Communicator&)> wrap_communicator;
  std::function<std::unique_ptr<Kernels>(Kernels&, Memory&)> wrap_kernels;
};

// The clock of a device that runs behind its host.
class DeviceClock {
 public:
  struct Pass {
    double time_s = 0;           // on the device, from start to stop
    double exposed_s = 0;        // that the kernels stood waiting for communication
    double communicating_s = 0;  // hidden or not
  };
  struct Peak {
    double flops = 0;     // per second, in the given type
    double clock_hz = 0;  // at which it has them: the highest, which it may not keep up
  };
  virtual ~DeviceClock() = default;
  virtual void start() = 0;  // when everything that was enqueued is done
  virtual Pass stop() = 0;   // likewise
  virtual Peak peak(DType storage) const = 0;
};

// One rank's machine, for the length of one run.
struct Machine {
  Communicator& comm;
  Kernels& kernels;
  Memory& memory;
  DeviceClock* device = nullptr;  // null: the host does the work itself
};

// Tokens of drawn problems. Sanitized kernels take 5 to 20 times as long.
#ifdef SP_SANITIZED
inline constexpr std::int64_t kLongestDraw = 1000;
#else
inline constexpr std::int64_t kLongestDraw = 5000;
#endif

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  virtual int most_ranks() const = 0;
  // Of its kernels: how they multiply probabilities, and whether they know f64.
  virtual Operands operands() const { return Operands::kAccumulator; }
  virtual bool knows_f64() const { return true; }
  virtual std::int64_t longest() const { return kLongestDraw; }  // problem that it does in a moment
  // That so many ranks compute on, where they compute on devices: fewer than ranks, and they share.
  virtual int devices(int ranks) const { return ranks; }
  // Runs the body on ranks 0..ranks-1; collective over the processes of the back-end. Throws the
  // first failure.
  virtual void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) = 0;
  // Whether the back-end can run again after run() threw; otherwise the process must end.
  virtual bool survives_failure() const = 0;
  // Whether a witness can watch: all ranks are here, and the host sees their tensors.
  virtual bool can_be_watched() const { return false; }
  // The process that holds rank 0 reports and compares; the others follow its decision.
  virtual bool leads() const = 0;
  virtual bool agree(bool leaders_verdict) = 0;
};

std::unique_ptr<Backend> make_thread_backend(
    std::chrono::milliseconds time_limit = kDefaultTimeLimit);

// Puts the rig around a rank's communicator, runs the body on CPU kernels and memory, and checks
// the rig's findings. A clock, if there is one, sees every kernel too.
void run_on_cpu(Communicator& comm, const Rig& rig, const std::function<void(Machine&)>& body,
                KernelObserver* clock = nullptr);

constexpr int kMostThreadRanks = 4096;

}  // namespace sp
