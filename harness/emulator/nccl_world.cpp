// Joining, splitting, matching.
// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/nccl_world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>

#include "harness/emulator/nccl_operation.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {

NcclWorld::NcclWorld(int size) : parties_(static_cast<std::size_t>(size)) {}

// Under the lock.
void NcclWorld::give_up(const Fault& fault) {
  if (!broken_) broken_ = fault;
  changed_.notify_all();
  throw fault;
}

void NcclWorld::wait(std::unique_lock<std::mutex>& lock, int rank, const char* for_what,
                     const std::function<bool()>& done) {
  constexpr std::chrono::seconds kLimit{60};
  const bool in_time =
      changed_.wait_for(lock, kLimit, [&] { return done() || broken_ || party(rank).aborted; });
  if (done()) return;
  if (broken_) throw Fault(*broken_);
  if (!in_time) {
    give_up(Fault(FaultKind::kDeadlock,
                  fmt::format("rank {} waited {} s {}", rank, kLimit.count(), for_what)));
  }
  throw Fault(FaultKind::kApi, fmt::format("rank {} was aborted waiting {}", rank, for_what));
}

void NcclWorld::join(int rank, int device, int size) {
  std::unique_lock lock(mutex_);
  if (size != this->size()) {
    give_up(Fault(FaultKind::kCollective,
                  fmt::format("rank {} joins {} ranks, another one {}", rank, size, this->size())));
  }
  if (party(rank).device >= 0) {
    give_up(Fault(FaultKind::kApi, fmt::format("two ranks {} join one communicator", rank)));
  }
  for (int other = 0; other < size; ++other) {
    if (party(other).device != device) continue;
    give_up(Fault(FaultKind::kApi, fmt::format("ranks {} and {} of one communicator on device {}",
                                               other, rank, device)));
  }
  party(rank).device = device;
  ++joined_;
  changed_.notify_all();
  wait(lock, rank, "for all ranks to join", [&] { return joined_ == parties_.size(); });
}

NcclWorld::Part NcclWorld::split(int rank, int colour, int key) {
  std::unique_lock lock(mutex_);
  Split& split = splits_[party(rank).splits++];
  split.choices.resize(parties_.size());
  split.choices[static_cast<std::size_t>(rank)] = {colour, key};
  ++split.chosen;
  changed_.notify_all();
  wait(lock, rank, "for all ranks to split", [&] { return split.chosen == parties_.size(); });
  if (colour == NCCL_SPLIT_NOCOLOR) return {};
  std::vector<int> members;
  for (int other = 0; other < size(); ++other) {
    if (split.choices[static_cast<std::size_t>(other)].first == colour) members.push_back(other);
  }
  std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
    return split.choices[static_cast<std::size_t>(a)].second <
           split.choices[static_cast<std::size_t>(b)].second;
  });
  auto& world = split.worlds[colour];
  if (world == nullptr) {
    world = std::make_shared<NcclWorld>(static_cast<int>(members.size()));
    world->joined_ = members.size();
    for (std::size_t i = 0; i < members.size(); ++i) {
      world->parties_[i].device = party(members[i]).device;
    }
  }
  const auto mine = std::find(members.begin(), members.end(), rank);
  return {world, static_cast<int>(mine - members.begin())};
}

// ---- Matching ----------------------------------------------------------------------------------

// Under the lock. The call's meeting and its place there.
std::shared_ptr<NcclWorld::Meeting> NcclWorld::meet(int rank, const NcclCall& call,
                                                    std::size_t& place) {
  std::shared_ptr<Meeting> meeting;
  const auto make = [&](std::size_t places) {
    meeting = std::make_shared<Meeting>();
    meeting->places.resize(places);
    static std::atomic<std::uint64_t> numbers = 0;
    meeting->number = ++numbers;
    meeting->seed = settings().seed * 1000003 + ++meetings_;
  };
  if (call.pairwise()) {
    const bool sends = call.kind == NcclKind::kSend;
    const Pair pair = sends ? Pair{rank, call.peer} : Pair{call.peer, rank};
    place = sends ? 0 : 1;
    auto& open = open_pairs_[pair];
    const auto found = std::find_if(open.begin(), open.end(), [&](const auto& candidate) {
      return !candidate->places[place].posted;
    });
    if (found != open.end()) {
      meeting = *found;
      open.erase(found);
    } else {
      make(2);
      meeting->places[0].rank = pair.first;
      meeting->places[1].rank = pair.second;
      open.push_back(meeting);
    }
  } else {
    place = static_cast<std::size_t>(rank);
    const std::uint64_t number = party(rank).collectives++;
    auto& open = open_collectives_[number];
    if (open == nullptr) {
      make(parties_.size());
      for (std::size_t r = 0; r < parties_.size(); ++r) {
        meeting->places[r].rank = static_cast<int>(r);
      }
      open = meeting;
    }
    meeting = open;
    const auto posted = [](const Place& other) { return other.posted; };
    if (std::count_if(meeting->places.begin(), meeting->places.end(), posted) + 1 == size()) {
      open_collectives_.erase(number);
    }
  }
  for (const Place& other : meeting->places) {
    if (!other.posted) continue;
    if (const char* what = difference(other.call, call)) {
      give_up(Fault(FaultKind::kCollective,
                    fmt::format("{} differ: rank {} calls {}, rank {} calls {}", what, other.rank,
                                other.call.describe(), rank, call.describe())));
    }
  }
  meeting->places[place].posted = true;
  meeting->places[place].call = call;
  return meeting;
}

std::vector<std::uint64_t> NcclWorld::post(int rank, const std::vector<NcclCall>& asked,
                                           cudaStream_t stream) {
  std::vector<NcclCall> calls = asked;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    NcclCall& call = calls[i];
    check_arguments(call, size());
    if (call.kind == NcclKind::kSend && sabotaged("nccl_peer_off_by_one")) {
      call.peer = (call.peer + 1) % size();
    }
    if (call.kind != NcclKind::kReceive || !sabotaged("nccl_swapped_pair")) continue;
    for (std::size_t before = 0; before < i; ++before) {
      NcclCall& other = calls[before];
      const bool pair = other.kind == call.kind && other.peer == call.peer &&
                        other.count == call.count && other.type == call.type;
      if (pair) std::swap(other.to, call.to);
    }
  }
  check_overlaps(calls, rank, size());
  auto operation = std::make_unique<Operation>(shared_from_this(), rank);
  std::vector<std::uint64_t> meetings;
  {
    const std::lock_guard lock(mutex_);
    if (broken_) throw Fault(*broken_);
    for (const NcclCall& call : calls) {
      std::size_t place = 0;
      auto meeting = meet(rank, call, place);
      meetings.push_back(meeting->number);
      operation->add(std::move(meeting), place);
    }
    party(rank).order.push_back(operation.get());
  }
  enqueue(stream, std::move(operation));
  notify_all_hosts();
  return meetings;
}

// ---- Ends --------------------------------------------------------------------------------------

void NcclWorld::abort(int rank) {
  {
    const std::lock_guard lock(mutex_);
    party(rank).aborted = true;
    changed_.notify_all();
  }
  notify_all_hosts();
}

void NcclWorld::leave(int rank) {
  {
    const std::lock_guard lock(mutex_);
    party(rank).left = true;
  }
  notify_all_hosts();
}

ncclResult_t NcclWorld::state(int rank) {
  const std::lock_guard lock(mutex_);
  if (party(rank).aborted) return ncclInvalidUsage;
  const auto aborted = [](const Party& other) { return other.aborted; };
  const bool alone = std::any_of(parties_.begin(), parties_.end(), aborted);
  return broken_ || alone ? ncclRemoteError : ncclSuccess;
}

// ---- Deadlocks ---------------------------------------------------------------------------------

NcclWorld::Operation* NcclWorld::waiting(int rank) {
  const auto& order = party(rank).order;
  return !order.empty() && order.front()->reached() ? order.front() : nullptr;
}

// Under the lock: whether waiting from `rank` on leads back to the target, through ranks that have
// reached what they wait in. Whoever they wait for then comes too late, whatever it posts.
bool NcclWorld::follow(int rank, int target, std::vector<bool>& seen, std::string& path) {
  Operation* operation = waiting(rank);
  if (operation == nullptr) return false;
  for (const auto& [other, call] : operation->waits_for()) {
    const std::string step = fmt::format("{}rank {} waits in {} for rank {}",
                                         path.empty() ? "" : "; ", rank, call->describe(), other);
    const std::size_t length = path.size();
    path += step;
    if (other == target) return waiting(target) != nullptr;
    if (!seen[static_cast<std::size_t>(other)]) {
      seen[static_cast<std::size_t>(other)] = true;
      if (follow(other, target, seen, path)) return true;
    }
    path.resize(length);
  }
  return false;
}

std::optional<std::string> NcclWorld::deadlock(int rank) {
  std::vector<bool> seen(parties_.size());
  std::string path;
  if (follow(rank, rank, seen, path)) return path;
  return std::nullopt;
}

}  // namespace sp::emulator
