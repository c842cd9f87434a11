// One block at a time: its lanes, its warps, and who runs next.
//
// A lane runs until it waits: at a warp operation for the 32 lanes of its warp, at block_barrier()
// for all lanes. The last to arrive performs the operation for everybody. Who runs next is the
// adversary's choice, drawn per block from the launch's seed. As soon as a rendezvous can no longer
// be met, because a lane has left or waits for something else, it is a fault.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "harness/emulator/counters.hpp"
#include "harness/emulator/fiber.hpp"
#include "harness/emulator/machine.hpp"
#include "harness/emulator/shared_memory.hpp"

namespace sp::emulator {

constexpr int kWarpLanes = 32;
constexpr int kMostThreads = 1024;
constexpr std::uint32_t kAllLanes = 0xffffffffu;

struct Block;
struct Warp;

struct Lane {
  Block* block = nullptr;
  Warp* warp = nullptr;
  int thread = 0;  // linear, of the block
  uint3 index{};
  AsyncCopies copies;

  int number() const { return thread % kWarpLanes; }
  std::uint32_t bit() const { return 1u << number(); }
};

// What 32 lanes do together. `operands` of each lane point into its own stack, which stands still.
struct WarpOperation {
  const char* name;
  void (*perform)(Warp& warp);
};

struct Warp {
  Block* block = nullptr;
  int number = 0;
  Lane* first = nullptr;    // of the block's array
  std::uint32_t lanes = 0;  // there are
  std::uint32_t runnable = 0;
  std::uint32_t at_operation = 0;
  std::uint32_t at_barrier = 0;
  std::uint32_t gone = 0;
  const WarpOperation* operation = nullptr;  // of those at_operation
  void* operands[kWarpLanes] = {};
  Stamp interval = 0;          // between two barriers, of the warp or the block
  std::uint32_t barriers = 0;  // warp_barrier() completed
  char tsan_barrier[2] = {};

  template <class Operands>
  Operands& of(int lane) {
    return *static_cast<Operands*>(operands[lane]);
  }
};

// The planted faults, looked up once per launch.
struct Sabotages {
  bool barrier_ignored, warp_barrier_ignored, async_wait_ignored, async_zero_fill_ignored,
      async_commit_ignored, load_matrix_row_off, load_matrix_not_transposed, mma_a_swapped,
      mma_b_swapped, mma_c_not_accumulated, shuffle_neighbour, ballot_first_lane, round_toward_zero,
      exp2_without_integer_part, last_block_missing, last_warp_missing;
  static Sabotages planted();
};

struct Block {
  // Of the launch.
  const KernelLaunch* launch = nullptr;
  Sabotages sabotage{};
  std::unique_ptr<AccessCounter> counter;  // null: nobody counts
  Accessor who;                            // its block is this one
  int sum_order = 0;                       // of mma, of six
  std::uint32_t exp2_seed = 0;

  // Of the block.
  uint3 index{};
  int threads = 0;
  SharedMemory shared;
  std::vector<Lane> lanes;
  std::vector<std::unique_ptr<Fiber>> fibers;  // of the lanes
  std::vector<Warp> warps;
  std::uint32_t runnable_warps = 0;
  bool copies_land_early = false;
  int waiting = 0;  // at the barrier
  int gone = 0;
  std::exception_ptr failure;
  std::uint32_t barriers = 0;
  char tsan_start = 0, tsan_end = 0, tsan_barrier[2] = {};

  void begin(const KernelLaunch& kernel_launch);
  void run(std::uint32_t linear_index);  // throws what a lane threw
  void stop(const Lane& lane) {
    if ((lane.warp->runnable &= ~lane.bit()) == 0) runnable_warps &= ~(1u << lane.warp->number);
  }
  void resume(Warp& warp) {
    if ((warp.runnable = warp.lanes) != 0) runnable_warps |= 1u << warp.number;
  }
  // The current lane is stopped; returns when it is its turn again.
  void suspend();
  // All lanes of the block have arrived, the current one last.
  void pass_barrier();
  // The current lane has completed a rendezvous: it goes on, or somebody else first.
  void yield(bool of_block);
  // Ends the block: a lane cannot go on.
  [[noreturn]] void fail(FaultKind kind, const Lane& lane, const std::string& story) const;
  std::exception_ptr located(const Fault& fault, const Lane& lane) const;  // adds where
  [[noreturn]] void diverge(const Lane& lane, const std::string& what) const;
  std::string whereabouts() const;  // who waits where

 private:
  enum class Order : std::uint8_t { kAscending, kDescending, kRandom };

  Fiber* caller_ = nullptr;
  std::uint64_t random_ = 1;
  Order lane_order_ = Order::kAscending;
  Order warp_order_ = Order::kAscending;
  bool changes_warps_ = false;  // after each operation, instead of running one as far as it can go

  std::uint64_t draw();
  int choose(std::uint32_t candidates, Order order);
  Lane& next(const Warp* preferred);
  void switch_to(Lane& to);
  void start_lanes(int count);
  static Fiber& lane_entry();
  void leave(Lane& lane);
  Fiber& successor(const Lane& lane);
  Fiber& fiber_of(const Lane& lane) { return *fibers[static_cast<std::size_t>(lane.thread)]; }
};

// The lane whose fiber runs on this thread; null outside of kernels.
extern constinit thread_local Lane* current_lane;

// The current lane and the other 31 do this together.
void meet(const WarpOperation& operation, void* operands);

// A fault whose story already says where.
class LocatedFault : public Fault {
 public:
  using Fault::Fault;
};

}  // namespace sp::emulator
