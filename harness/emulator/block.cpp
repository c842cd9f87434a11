// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/block.hpp"

#include <fmt/format.h>

#include <mutex>
#include <numeric>
#include <utility>

#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

std::uint32_t lane_mask(int count) { return count >= kWarpLanes ? kAllLanes : (1u << count) - 1; }

std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// Blocks rest here between launches: their stacks and shadows are worth keeping.
class Pool {
 public:
  std::unique_ptr<Block> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Block>();
    std::unique_ptr<Block> block = std::move(free_.back());
    free_.pop_back();
    return block;
  }
  void give_back(std::unique_ptr<Block> block) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> free_;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

constinit thread_local Lane* current_lane = nullptr;

Sabotages Sabotages::planted() {
#define SP_PLANTED(id) .id = sabotaged(#id)
  return {SP_PLANTED(barrier_ignored),
          SP_PLANTED(warp_barrier_ignored),
          SP_PLANTED(async_wait_ignored),
          SP_PLANTED(async_zero_fill_ignored),
          SP_PLANTED(async_commit_ignored),
          SP_PLANTED(load_matrix_row_off),
          SP_PLANTED(load_matrix_not_transposed),
          SP_PLANTED(mma_a_swapped),
          SP_PLANTED(mma_b_swapped),
          SP_PLANTED(mma_c_not_accumulated),
          SP_PLANTED(shuffle_neighbour),
          SP_PLANTED(ballot_first_lane),
          SP_PLANTED(round_toward_zero),
          SP_PLANTED(exp2_without_integer_part),
          SP_PLANTED(last_block_missing),
          SP_PLANTED(last_warp_missing)};
#undef SP_PLANTED
}

// ---- A launch ----------------------------------------------------------------------------------

void Block::begin(const KernelLaunch& kernel_launch) {
  launch = &kernel_launch;
  sabotage = Sabotages::planted();
  who = kernel_launch.who;
  const std::uint64_t machine_seed = mix(settings().seed);
  sum_order = static_cast<int>(machine_seed % 6);
  exp2_seed = static_cast<std::uint32_t>(machine_seed >> 32);
  const dim3 shape = kernel_launch.block;
  threads = static_cast<int>(shape.x * shape.y * shape.z);
  if (threads < 1 || threads > kMostThreads) {
    throw Fault(FaultKind::kResources,
                fmt::format("kernel '{}': a block of {} threads", kernel_launch.name, threads));
  }
  counter = counting() ? std::make_unique<AccessCounter>(threads) : nullptr;
  if (static_cast<int>(lanes.size()) < threads) lanes.resize(static_cast<std::size_t>(threads));
  for (int thread = static_cast<int>(fibers.size()); thread < threads; ++thread) {
    fibers.push_back(std::make_unique<Fiber>(thread));
  }
  warps.resize(static_cast<std::size_t>((threads + kWarpLanes - 1) / kWarpLanes));
  for (int thread = 0; thread < threads; ++thread) {
    const auto i = static_cast<unsigned>(thread);
    Lane& lane = lanes[i];
    lane.block = this;
    lane.warp = &warps[i / kWarpLanes];
    lane.thread = thread;
    lane.index = {i % shape.x, i / shape.x % shape.y, i / (shape.x * shape.y)};
  }
}

void Block::run(std::uint32_t linear_index) {
  const dim3 grid = launch->grid;
  index = {linear_index % grid.x, linear_index / grid.x % grid.y, linear_index / (grid.x * grid.y)};
  who.block = linear_index + 1;
  random_ = mix(launch->seed + 0x9e3779b97f4a7c15u * (linear_index + 1));
  lane_order_ = static_cast<Order>(draw() % 3);
  warp_order_ = static_cast<Order>(draw() % 3);
  changes_warps_ = draw() % 2 == 0;
  copies_land_early = draw() % 4 == 0;

  const int count =
      sabotage.last_warp_missing ? (static_cast<int>(warps.size()) - 1) * kWarpLanes : threads;
  if (count == 0) return;
  start_lanes(count);
  Fiber caller;
  caller_ = &caller;
  Lane* const outer = current_lane;
  tsan_release(&tsan_start);
  current_lane = &next(nullptr);
  Fiber::switch_over(caller, fiber_of(*current_lane));
  tsan_acquire(&tsan_end);
  current_lane = outer;
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

void Block::start_lanes(int count) {
  const int warp_count = static_cast<int>(warps.size());
  shared.begin_block(launch->shared_bytes, warp_count);
  waiting = gone = 0;
  threads = count;
  runnable_warps = 0;
  for (int w = 0; w < warp_count; ++w) {
    Warp& warp = warps[static_cast<std::size_t>(w)];
    const int first = w * kWarpLanes;
    warp.block = this;
    warp.number = w;
    warp.first = &lanes[static_cast<std::size_t>(first)];
    warp.lanes = first < count ? lane_mask(count - first) : 0;
    warp.at_operation = warp.at_barrier = warp.gone = 0;
    warp.interval = shared.first_interval() + static_cast<Stamp>(w);
    resume(warp);
  }
  for (int thread = 0; thread < count; ++thread) {
    const auto i = static_cast<std::size_t>(thread);
    lanes[i].copies.pending.clear();
    lanes[i].copies.group = 0;
    fibers[i]->prepare(&Block::lane_entry);
  }
}

void run_kernel(const KernelLaunch& launch) {
  const std::uint32_t blocks = launch.grid.x * launch.grid.y * launch.grid.z;
  std::vector<std::uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::uint64_t state = launch.seed;
  for (std::uint32_t i = blocks; i > 1; --i) {
    state += 0x9e3779b97f4a7c15u;
    std::swap(order[i - 1], order[mix(state) % i]);
  }
  std::unique_ptr<Block> block = pool().take();
  block->begin(launch);
  try {
    for (const std::uint32_t linear_index : order) {
      if (block->sabotage.last_block_missing && linear_index == blocks - 1) continue;
      block->run(linear_index);
    }
  } catch (...) {
    block->shared.clear();
    for (const std::unique_ptr<Fiber>& fiber : block->fibers) fiber->reset();
    pool().give_back(std::move(block));
    throw;
  }
  if (block->counter) block->counter->report(launch.name);
  pool().give_back(std::move(block));
}

// ---- Lanes -------------------------------------------------------------------------------------

Fiber& Block::lane_entry() {
  Block* block = nullptr;
  {
    const Unseen unseen;
    block = current_lane->block;
    tsan_acquire(&block->tsan_start);
  }
  try {
    block->launch->body();
    const Unseen unseen;
    block->leave(*current_lane);
  } catch (const LocatedFault&) {
    const Unseen unseen;
    block->failure = std::current_exception();
  } catch (const Fault& fault) {
    const Unseen unseen;
    block->failure = block->located(fault, *current_lane);
  } catch (...) {
    const Unseen unseen;
    block->failure = std::current_exception();
  }
  const Unseen unseen;
  tsan_release(&block->tsan_end);
  return block->successor(*current_lane);
}

// The lane has returned from the kernel.
void Block::leave(Lane& lane) {
  Warp& warp = *lane.warp;
  if (!lane.copies.pending.empty()) {
    fail(FaultKind::kAsyncCopy, lane,
         fmt::format("returns with {} asynchronous copies under way", lane.copies.pending.size()));
  }
  if (warp.at_operation != 0 || waiting > 0) diverge(lane, "returns from the kernel");
  stop(lane);
  warp.gone |= lane.bit();
  ++gone;
  if (warp.gone == warp.lanes && counter) {
    counter->flush(warp.number * kWarpLanes, std::popcount(warp.lanes));
  }
}

// Where to go on when a lane's fiber ends.
Fiber& Block::successor(const Lane& lane) {
  if (failure || gone == threads) return *caller_;
  current_lane = &next(lane.warp);
  return fiber_of(*current_lane);
}

void Block::switch_to(Lane& to) {
  Lane& from = *current_lane;
  if (&from == &to) return;
  current_lane = &to;
  Fiber::switch_over(fiber_of(from), fiber_of(to));
}

void Block::suspend() { switch_to(next(current_lane->warp)); }

void Block::yield(bool of_block) {
  if (of_block || changes_warps_) switch_to(next(nullptr));
}

void Block::pass_barrier() {
  const int warp_count = static_cast<int>(warps.size());
  shared.order_block(warp_count);
  waiting = 0;
  ++barriers;
  for (Warp& warp : warps) {
    if (counter) counter->flush(warp.number * kWarpLanes, std::popcount(warp.lanes));
    warp.interval = shared.first_interval() + static_cast<Stamp>(warp.number);
    warp.at_barrier = 0;
    resume(warp);
  }
}

// ---- The adversary -----------------------------------------------------------------------------

std::uint64_t Block::draw() {  // xorshift64
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

int Block::choose(std::uint32_t candidates, Order order) {
  switch (order) {
    case Order::kAscending:
      return std::countr_zero(candidates);
    case Order::kDescending:
      return 31 - std::countl_zero(candidates);
    case Order::kRandom:
      break;
  }
  const int turn = static_cast<int>(draw() >> 40) & 31;
  return (std::countr_zero(std::rotr(candidates, turn)) + turn) & 31;
}

Lane& Block::next(const Warp* preferred) {
  if (preferred == nullptr || preferred->runnable == 0) {
    preferred = &warps[static_cast<std::size_t>(choose(runnable_warps, warp_order_))];
  }
  return preferred->first[choose(preferred->runnable, lane_order_)];
}

}  // namespace sp::emulator
