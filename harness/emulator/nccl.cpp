// NCCL's functions: handles, groups, errors.
//
// Non-blocking communicators say ncclInProgress as the documentation allows, whether they need to or
// not: until ncclCommGetAsyncError has said something else, nobody may use them.
// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/include/nccl.h"

#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <thread>
#include <type_traits>
#include <unordered_map>

#include "harness/emulator/nccl_world.hpp"
#include "harness/emulator/streams.hpp"
#include "optimized/comm/post_order.hpp"

namespace sp::emulator {
namespace {

// What a non-blocking communicator does on a thread of its own.
struct Job {
  std::function<void()> work;    // may block; throws Fault
  std::function<void()> finish;  // by whoever asks, after the work
  std::atomic<bool> done{false};
  std::optional<Fault> fault;
  std::jthread thread;  // last: ends first
};

struct Comm {
  std::shared_ptr<NcclWorld> world;
  int rank = 0;
  bool blocking = true;
  bool finalized = false;
  int busy = 0;              // how often ncclCommGetAsyncError still says ncclInProgress
  std::shared_ptr<Job> job;  // that must end first
  std::thread::id inside{};  // a call that blocks, of this thread
};

std::mutex mutex;  // of what follows
std::uint64_t handles = 0;
std::unordered_map<std::uint64_t, Comm> comms;
std::unordered_map<std::uint64_t, std::shared_ptr<NcclWorld>> worlds;  // by unique id

// A call inside an open group of this thread.
struct Grouped {
  ncclComm_t comm;
  cudaStream_t stream;
  std::vector<NcclCall> calls;
};
struct Group {
  int depth = 0;
  std::vector<Grouped> operations;  // one per communicator
  std::optional<Fault> fault;       // of a call inside: nothing is posted
};
thread_local Group group;
thread_local std::string last_error;

ncclResult_t code_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kApi:
      return ncclInvalidArgument;
    case FaultKind::kCollective:
      return ncclInvalidUsage;
    default:
      return ncclSystemError;
  }
}

template <class F>
ncclResult_t guarded(const char* call, F&& f) {
  try {
    if constexpr (std::is_same_v<decltype(f()), ncclResult_t>) {
      return f();
    } else {
      f();
      return ncclSuccess;
    }
  } catch (const Fault& fault) {
    last_error = fmt::format("{}: {}", call, fault.what());
    record_fault(Fault(fault.kind(), last_error));
    return code_of(fault.kind());
  }
}

[[noreturn]] void refuse(const std::string& why) { throw Fault(FaultKind::kApi, why); }

std::uint64_t number_of(ncclComm_t comm) { return reinterpret_cast<std::uint64_t>(comm); }

// Unknown ones are found, because handles are never used again.
Comm find(ncclComm_t comm) {
  const std::lock_guard lock(mutex);
  const auto found = comms.find(number_of(comm));
  if (found == comms.end()) refuse("the communicator is destroyed, aborted or was never made");
  return found->second;
}

// One that may be used.
Comm find_idle(ncclComm_t comm) {
  Comm found = find(comm);
  if (found.job != nullptr || found.busy > 0) {
    refuse("the communicator is in progress: ncclCommGetAsyncError says when it may be used");
  }
  return found;
}

// Changes the communicator, if it still exists.
template <class F>
void change(ncclComm_t comm, F&& f) {
  const std::lock_guard lock(mutex);
  const auto found = comms.find(number_of(comm));
  if (found != comms.end()) f(found->second);
}

// For its lifetime this thread is in a call that blocks.
class Inside {
 public:
  explicit Inside(ncclComm_t comm) : comm_(comm) { set(std::this_thread::get_id()); }
  ~Inside() { set({}); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  void set(std::thread::id id) const {
    change(comm_, [id](Comm& of) { of.inside = id; });
  }
  ncclComm_t comm_;
};

// Something of a non-blocking communicator is under way, for a moment or as long as the job takes.
ncclResult_t set_busy(ncclComm_t comm) {
  static std::atomic<std::uint64_t> calls = 0;
  const int polls = static_cast<int>((calls++ + settings().seed) % 3);
  change(comm, [&](Comm& of) { of.busy = of.blocking ? 0 : polls; });
  return polls > 0 && !find(comm).blocking ? ncclInProgress : ncclSuccess;
}
ncclResult_t start(ncclComm_t comm, std::function<void()> work, std::function<void()> finish) {
  auto job = std::make_shared<Job>();
  job->work = std::move(work);
  job->finish = std::move(finish);
  change(comm, [&](Comm& of) { of.job = job; });
  job->thread = std::jthread([own = job.get()] {
    try {
      own->work();
    } catch (const Fault& fault) {
      own->fault = fault;
    }
    own->done = true;
  });
  return ncclInProgress;
}

// In which order every device posted since there were no communicators, and whether one was aborted.
struct Orders {
  std::map<int, PostLog> of_device;
  bool aborted = false;
};
Orders orders;

// The last communicator is gone: whether all orders agree, of which a machine with one queue for all
// would make a deadlock otherwise. Communicators of one program are destroyed before the next begins.
void compare_orders() {
  Orders done;
  {
    const std::lock_guard lock(mutex);
    if (!comms.empty()) return;
    done = std::exchange(orders, {});
  }
  if (done.aborted || done.of_device.empty()) return;
  std::vector<PostLog> logs(static_cast<std::size_t>(done.of_device.rbegin()->first) + 1);
  for (auto& [device, log] : done.of_device) logs[static_cast<std::size_t>(device)] = log;
  if (const std::string circle = conflict(logs); !circle.empty())
    throw Fault(FaultKind::kCollective,
                "communicators are used in different orders, which may hang: " + circle);
}

ncclComm_t add(std::shared_ptr<NcclWorld> world, int rank, bool blocking) {
  const std::lock_guard lock(mutex);
  Comm& made = comms[++handles];
  made.world = std::move(world);
  made.rank = rank;
  made.blocking = blocking;
  return reinterpret_cast<ncclComm_t>(handles);
}

Comm remove(ncclComm_t comm, bool aborted) {
  Comm removed = find(comm);
  const std::lock_guard lock(mutex);
  comms.erase(number_of(comm));
  orders.aborted = orders.aborted || aborted;  // before anybody can find that all are gone
  return removed;
}

// The operations of one group, in any order.
ncclResult_t post(const std::vector<Grouped>& operations) {
  ncclResult_t result = ncclSuccess;
  std::vector<std::uint64_t> meetings;
  std::string what;
  int device = -1;
  for (const Grouped& operation : operations) {
    const Comm comm = find_idle(operation.comm);
    if (comm.finalized) refuse("the communicator is finalized");
    device = comm.world->device(comm.rank);
    int current = -1;
    cudaGetDevice(&current);
    if (current != device) {
      refuse(
          fmt::format("the communicator is of device {}, the current one is {}", device, current));
    }
    const auto more = comm.world->post(comm.rank, operation.calls, operation.stream);
    meetings.insert(meetings.end(), more.begin(), more.end());
    if (what.empty())
      what =
          fmt::format("{} among {} ranks", operation.calls.front().describe(), comm.world->size());
    if (set_busy(operation.comm) == ncclInProgress) result = ncclInProgress;
  }
  const std::lock_guard lock(mutex);
  if (device >= 0) orders.of_device[device].add(std::move(what), std::move(meetings));
  return result;
}

void add_to_group(ncclComm_t comm, cudaStream_t stream, const NcclCall& call) {
  check_arguments(call, find(comm).world->size());
  for (Grouped& operation : group.operations) {
    if (operation.comm != comm) continue;
    if (operation.stream != stream) refuse("one communicator on two streams in one group");
    operation.calls.push_back(call);
    return;
  }
  group.operations.push_back({comm, stream, {call}});
}

ncclResult_t call(const char* name, ncclComm_t comm, cudaStream_t stream, const NcclCall& what) {
  return guarded(name, [&] {
    if (group.depth == 0) return post({{comm, stream, {what}}});
    try {
      add_to_group(comm, stream, what);
      return ncclSuccess;
    } catch (const Fault& fault) {
      if (!group.fault) group.fault = fault;
      throw;
    }
  });
}

void refuse_in_group(const char* name) {
  if (group.depth > 0) refuse(fmt::format("the emulator has no {} inside a group", name));
}

}  // namespace

void forget_communicators() {
  const std::lock_guard lock(mutex);
  comms.clear();
  worlds.clear();
  orders = {};
}

void check_groups_closed(const char* name) {
  if (group.depth == 0) return;
  std::string open;
  for (const Grouped& operation : group.operations) open += "; " + operation.calls[0].describe();
  group = {};  // once is enough
  throw ApiError(cudaErrorInvalidValue,
                 fmt::format("{} while a group of this thread is open{}", name, open));
}

// ---- Errors and versions -----------------------------------------------------------------------

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* kWords[] = {"no error",       "unhandled CUDA error", "system error",
                                    "internal error", "invalid argument",     "invalid usage",
                                    "remote error",   "in progress"};
  return kWords[static_cast<std::size_t>(result)];
}

const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

// ---- Communicators -----------------------------------------------------------------------------

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(mutex);
  const std::uint64_t number = ++handles;
  *id = {};
  std::memcpy(id->internal, &number, sizeof number);
  worlds[number] = nullptr;
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(comm, size, id, rank, nullptr);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  return guarded("ncclCommInitRank", [&] {
    refuse_in_group("ncclCommInitRank");
    if (size < 1 || rank < 0 || rank >= size) refuse(fmt::format("rank {} of {}", rank, size));
    int device = -1;
    if (cudaGetDevice(&device) != cudaSuccess) refuse("no current device");
    std::uint64_t number = 0;
    std::memcpy(&number, id.internal, sizeof number);
    std::shared_ptr<NcclWorld> world;
    {
      const std::lock_guard lock(mutex);
      const auto found = worlds.find(number);
      if (found == worlds.end()) refuse("the unique id was never given out, or has been used");
      if (found->second == nullptr) found->second = std::make_shared<NcclWorld>(size);
      world = found->second;
    }
    const auto join = [world, rank, device, size, number] {
      world->join(rank, device, size);
      const std::lock_guard lock(mutex);
      worlds.erase(number);
    };
    if (config != nullptr && config->blocking == 0) {
      *comm = add(world, rank, false);
      return start(*comm, join, [] {});
    }
    join();
    *comm = add(world, rank, true);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int colour, int key, ncclComm_t* part,
                           ncclConfig_t* config) {
  return guarded("ncclCommSplit", [&] {
    refuse_in_group("ncclCommSplit");
    if (config != nullptr) refuse("the emulator has no configurations");
    if (colour < 0 && colour != NCCL_SPLIT_NOCOLOR) refuse(fmt::format("colour {}", colour));
    const Comm parent = find_idle(comm);
    const auto made = std::make_shared<NcclWorld::Part>();
    const auto split = [made, world = parent.world, rank = parent.rank, colour, key] {
      *made = world->split(rank, colour, key);
    };
    const auto give = [made, part, blocking = parent.blocking] {
      *part = made->world == nullptr ? nullptr : add(made->world, made->rank, blocking);
    };
    if (!parent.blocking) return start(comm, split, give);
    {
      const Inside inside(comm);
      split();
    }
    give();
    return ncclSuccess;
  });
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return guarded("ncclCommFinalize", [&] {
    check_groups_closed("ncclCommFinalize");
    find_idle(comm);
    change(comm, [](Comm& of) { of.finalized = true; });
    return set_busy(comm);
  });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return guarded("ncclCommDestroy", [&] {
    check_groups_closed("ncclCommDestroy");
    if (const Comm found = find_idle(comm); !found.blocking && !found.finalized) {
      refuse("a non-blocking communicator is finalized first, and asked whether that is done");
    }
    const Comm removed = remove(comm, false);
    removed.world->leave(removed.rank);
    compare_orders();
  });
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  return guarded("ncclCommAbort", [&] {
    const Comm removed = remove(comm, true);
    if (removed.inside != std::thread::id{} && removed.inside != std::this_thread::get_id()) {
      record_fault(Fault(FaultKind::kApi,
                         "ncclCommAbort: another thread is inside a call with this communicator, "
                         "which blocks; only one that was made non-blocking can be aborted, while "
                         "nobody is inside"));
    }
    removed.world->abort(removed.rank);
    compare_orders();
  });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  return guarded("ncclCommGetAsyncError", [&] {
    const Comm found = find(comm);
    if (found.job != nullptr) {
      *error = ncclInProgress;
      if (!found.job->done) return;
      change(comm, [](Comm& of) { of.job = nullptr; });
      if (found.job->fault) throw Fault(*found.job->fault);
      found.job->finish();
    } else if (found.busy > 0) {
      change(comm, [](Comm& of) { --of.busy; });
      *error = ncclInProgress;
      return;
    }
    *error = found.world->state(found.rank);
  });
}

ncclResult_t ncclCommCount(ncclComm_t comm, int* count) {
  return guarded("ncclCommCount", [&] { *count = find(comm).world->size(); });
}

ncclResult_t ncclCommCuDevice(ncclComm_t comm, int* device) {
  return guarded("ncclCommCuDevice", [&] {
    const Comm found = find(comm);
    *device = found.world->device(found.rank);
  });
}

ncclResult_t ncclCommUserRank(ncclComm_t comm, int* rank) {
  return guarded("ncclCommUserRank", [&] { *rank = find(comm).rank; });
}

// ---- Groups ------------------------------------------------------------------------------------

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  return guarded("ncclGroupEnd", [&] {
    if (group.depth == 0) refuse("no group is open");
    if (--group.depth > 0) return ncclSuccess;
    const Group closed = std::exchange(group, {});
    if (closed.fault) throw Fault(*closed.fault);
    return post(closed.operations);
  });
}

// ---- Operations --------------------------------------------------------------------------------

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return call("ncclSend", comm, stream,
              {.kind = NcclKind::kSend, .from = from, .count = count, .type = type, .peer = peer});
}

ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return call("ncclRecv", comm, stream,
              {.kind = NcclKind::kReceive, .to = to, .count = count, .type = type, .peer = peer});
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return call("ncclAllGather", comm, stream, {NcclKind::kAllGather, from, to, count, type});
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return call("ncclReduceScatter", comm, stream,
              {NcclKind::kReduceScatter, from, to, count, type, op});
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return call("ncclAllReduce", comm, stream, {NcclKind::kAllReduce, from, to, count, type, op});
}

ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream) {
  return call("ncclReduce", comm, stream, {NcclKind::kReduce, from, to, count, type, op, root});
}

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  return call("ncclBroadcast", comm, stream,
              {NcclKind::kBroadcast, from, to, count, type, ncclSum, root});
}

}  // namespace sp::emulator
