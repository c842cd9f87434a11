// The faults that can be planted in the machine's primitives.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <mutex>
#include <string_view>

#include "harness/emulator/machine.hpp"
#include "harness/emulator/nvtx.hpp"

namespace sp::emulator {
namespace {

std::atomic<bool> any_planted{false};
std::mutex mutex;
Sabotage planted;

}  // namespace

const std::vector<SabotageInfo>& sabotages() {
  static const std::vector<SabotageInfo> all = {
      // blocks and warps
      {"barrier_ignored", "a block barrier returns at once"},
      {"warp_barrier_ignored", "a warp barrier returns at once"},
      {"shuffle_neighbour", "a shuffle reads one lane further"},
      {"ballot_first_lane", "a vote knows the first lane only"},
      {"last_block_missing", "the last block of a grid never runs"},
      {"last_warp_missing", "the last warp of a block never runs"},
      // asynchronous copies
      {"async_wait_ignored", "waiting for copies returns at once"},
      {"async_commit_ignored", "copies are never committed to a group"},
      {"async_zero_fill_ignored", "invalid copies write nothing instead of zeros"},
      // tensor cores and numbers
      {"load_matrix_row_off", "lanes 8 to 15 give the row of the next lane"},
      {"load_matrix_not_transposed", "transposed loads do not transpose"},
      {"mma_a_swapped", "registers 1 and 2 of A exchanged"},
      {"mma_b_swapped", "the registers of B exchanged"},
      {"mma_c_not_accumulated", "the product overwrites what it should be added to"},
      {"round_toward_zero", "conversions to 16 bits truncate"},
      {"exp2_without_integer_part", "exp2 loses the integer part of large arguments"},
      // streams and memory
      {"event_on_wrong_stream", "events are recorded on another stream of the device"},
      {"stream_wait_ignored", "streams do not wait for events"},
      {"memset_short", "memset misses the last 16 bytes"},
      {"copy_before_post", "device copies run at the call, ahead of their stream"},
      {"free_early", "stream-ordered frees take effect at the call"},
      // collectives
      {"nccl_peer_off_by_one", "sends go to the next peer but one"},
      {"nccl_stale_send", "a send delivers what its buffer held when it was last sent"},
      {"nccl_sum_drops_last_rank", "reductions leave the last rank out"},
      {"nccl_swapped_pair", "two messages between the same ranks exchanged"},
  };
  return all;
}

void plant(const Sabotage& sabotage) {
  const auto known = [&](const SabotageInfo& info) { return sabotage.id == info.id; };
  if (!sabotage.id.empty() && std::none_of(sabotages().begin(), sabotages().end(), known)) {
    throw Fault(FaultKind::kApi, "no sabotage is called " + sabotage.id);
  }
  const std::lock_guard lock(mutex);
  planted = sabotage;
  any_planted = !sabotage.id.empty();
}

bool sabotaged(const char* id) {
  if (!any_planted.load(std::memory_order_relaxed)) return false;
  const std::lock_guard lock(mutex);
  return planted.id == id && std::string_view(kernel_in_hand()).starts_with(planted.kernel);
}

}  // namespace sp::emulator
