// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/local/local_world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "optimized/comm/local/local_communicator.hpp"

namespace sp::SP_GPU {

void check_reach(int devices) {
  for (int device = 0; device < devices; ++device) {
    for (int other = 0; other < devices; ++other) {
      if (other == device || reaches(device, other)) continue;
      throw Error(
          ErrorKind::kEnvironment,
          fmt::format("GPUs {} and {} cannot reach each other's memory, which copies between "
                      "their ranks need: show one of them alone (CUDA_VISIBLE_DEVICES={}), or "
                      "give each rank its own and use --transport nccl",
                      std::min(device, other), std::max(device, other), device));
    }
  }
}

LocalWorld::LocalWorld(int ranks, std::chrono::milliseconds time_limit) {
  SP_CHECK(1 <= ranks && ranks <= kMostLocalRanks, "ranks of a local world");
  board_ = std::make_shared<ThreadBoard>(ranks, time_limit);
}

GpuWorld LocalWorld::join(Gpu& gpu, int rank, std::shared_ptr<Traffic> traffic) {
  auto session = std::make_shared<LocalSession>(gpu);
  session->set_watcher([board = board_, rank] { board->throw_if_failed(rank); });
  std::vector<int> members(static_cast<std::size_t>(board_->size()));
  std::iota(members.begin(), members.end(), 0);
  auto comm = std::make_unique<LocalCommunicator>(session, board_, 0, std::move(members), rank,
                                                  std::move(traffic), std::make_shared<Stages>());
  return {std::move(comm), std::move(session)};
}

void LocalWorld::finish(int rank) { board_->finish(rank); }
void LocalWorld::fail(int rank, std::exception_ptr reason) { board_->fail(rank, reason); }
void LocalWorld::rethrow_failure() const { board_->rethrow_failure(); }

}  // namespace sp::SP_GPU
