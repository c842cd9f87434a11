// SPDX-License-Identifier: Apache-2.0
#include "harness/run/nccl_ranks.hpp"

#include <utility>

#include "harness/run/rank_threads.hpp"
#include "optimized/comm/peer_failure.hpp"

namespace sp::SP_GPU {

void NcclRanks::meet(int rank, const ncclUniqueId& id, std::latch& ready, std::latch& joined) {
  Member& mine = members_[static_cast<std::size_t>(rank)];
  try {
    mine.gpu = std::make_unique<Gpu>(rank, size());
  } catch (...) {
    failures_.record(rank);
  }
  ready.arrive_and_wait();
  if (failures_.any()) return joined.count_down();
  try {
    mine.world = join_world(*mine.gpu, id, rank, size(), time_limit_, std::make_shared<Traffic>(),
                            failures_.flag());
  } catch (...) {
    failures_.record(rank);
  }
  joined.arrive_and_wait();
}

void NcclRanks::run(const Rig& rig, const std::function<void(Machine&)>& body) {
  const bool meets = !met_;
  const ncclUniqueId id = meets ? make_world_id() : ncclUniqueId{};  // may throw: nobody has met
  met_ = true;
  std::latch ready(size());   // nobody joins, and waits for all, before every GPU is known to work
  std::latch joined(size());  // no kernel waits for messages while another rank still connects
  const auto run_rank = [&](int rank) {
    try {
      Member& mine = members_[static_cast<std::size_t>(rank)];
      meets ? meet(rank, id, ready, joined) : mine.gpu->make_current();
      try {
        if (failures_.any()) throw PeerFailure("another rank has failed");
        run_on_gpu(*mine.gpu, *mine.world.comm, *mine.world.meter, rig, body);
      } catch (...) {
        failures_.record(rank);  // before its end makes others fail
        const Member ended = std::move(mine);
        throw;  // so that its communicators are aborted, not closed
      }
    } catch (...) {
      failures_.record(rank);
    }
  };
  run_on_threads(size(), run_rank, [&](int first) {
    failures_.record(first);
    ready.count_down(size() - first);
    joined.count_down(size() - first);
  });
  if (failures_.any()) leave();  // whoever was done before another failed
}

void NcclRanks::leave() {
  const auto leave_rank = [&](int rank) {
    Member& mine = members_[static_cast<std::size_t>(rank)];
    if (mine.gpu == nullptr) return;
    mine.gpu->make_current();
    const Member ended = std::move(mine);
  };
  run_on_threads(size(), leave_rank, [](int) {});
}

}  // namespace sp::SP_GPU
