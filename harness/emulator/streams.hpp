// Devices, their streams and events: queues of operations that run when somebody waits.
//
// Order      Everything posted gets a number and a past: for every stream of its device, and of those
//            that its stream has waited for, the last operation that must come before. Events and
//            synchronisation join pasts; nothing else orders streams. An operation is ready when it
//            is first in its queue and all that its past names is done; among the ready ones a seeded
//            generator picks.
// Copies     between devices have a number on both, on the other one in a slot that no other copy
//            under way has: so each shadow tells them from all that they are not ordered with.
// Laziness   Operations run only while a host thread waits or asks, on that thread. One that can do
//            nothing for its own device helps others, so a thread that is busy elsewhere does not
//            hold its peers up.
// Errors     A fault drops all that the device had to do, and sticks.
// Locks      One per device. Whoever holds one only tries another; to post a copy between devices both
//            are taken together. What is done can be seen without.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "harness/emulator/machine.hpp"
#include "harness/emulator/memory.hpp"

namespace sp::emulator {

void join(Clock& into, const Clock& from);

// What comes before something, by device.
using Past = std::map<int, Clock>;
void join(Past& into, const Past& from);
const Clock& clock_of(const Past& past, int device);
bool done(const Past& past);

// What a copy between devices is on the one that does not run it.
struct Visit {
  int device = -1;  // none
  int slot = 0;
  std::uint32_t number = 0;
};

struct Posted {
  std::uint32_t number = 0;
  Past past;
  std::unique_ptr<StreamOperation> body;
  Visit visit;
};

struct Stream {
  int slot = 0;
  bool blocking = false;   // ordered with the default stream
  bool destroyed = false;  // vanishes when its queue is empty
  Past past;               // of all that was posted to it, and that too
  std::deque<Posted> queue;
};

struct Event {
  bool timed = false;
  bool recorded = false;
  Past past;
  std::shared_ptr<double> milliseconds;  // when the latest record was executed; negative: not yet
};

// What a function was told, and how it is called.
struct KernelRecord {
  int dynamic_shared_limit = 48 * 1024;
  bool loaded = false;
  std::string name;
};

class Device {
 public:
  explicit Device(int ordinal);
  ~Device();

  std::mutex mutex;  // guards everything here; held while an operation runs

  int ordinal() const { return ordinal_; }
  DeviceMemory& memory() { return *memory_; }
  std::uint64_t random() { return random_(); }

  // Handles. Null where there is none.
  cudaStream_t add_stream(bool blocking);  // null: too many
  Stream* find(cudaStream_t handle);       // null is the default stream
  void remove_stream(cudaStream_t handle);
  Stream* any_other_stream(const Stream& than);
  cudaEvent_t add_event(bool timed);
  Event* find(cudaEvent_t handle);
  void remove_event(cudaEvent_t handle);

  std::uint32_t post(Stream& stream, std::unique_ptr<StreamOperation> body, Visit visit = {});
  // A number for a copy that a stream of another device runs, and its place in the stream's past.
  // ApiError: too many are under way.
  Visit admit(Past& past, const std::string& what);
  // The number that post() gives next.
  std::uint32_t next_number() const { return static_cast<std::uint32_t>(slot_of_.size()); }
  // Runs the operation posted last ahead of all others: a planted fault.
  void run_early(Stream& stream);
  void record(Event& event, Stream& stream);

  bool done(const Clock& clock) const;  // without the lock too
  bool idle() const { return pending_ == 0; }
  Past everything() const;
  // Others wait for the event: from now on they are told what is done here.
  Past past_for_others(const Event& event);
  // What the host waited for comes before all that it posts from now on.
  void join_host(const Clock& clock) { join(host_, clock); }
  const Clock& host_clock() const { return host_; }

  // Lets one ready operation advance. Elsewhere: none could, but one waits for another device. Busy:
  // none but a copy, whose other device was locked.
  enum class Step : std::uint8_t { kMoved, kNothing, kElsewhere, kBusy };
  Step step();
  // The lock was let go. Wakes whoever has missed it.
  void released();
  std::string heads() const;  // what every stream waits for, one line each

  // The error that sticks, or success.
  cudaError_t error() const { return error_; }
  void fail(FaultKind kind, const std::string& what);
  void recover();
  void reset();  // forgets all but numbers, so that handles from before are found stale
  // What cudaGetErrorString() adds for an error.
  void tell(cudaError_t error, std::string story);
  std::string story(cudaError_t error) const { return error == story_error_ ? story_ : ""; }

  std::string name_of_operation(std::uint32_t number) const;
  Objects objects() const;

  // Whether kernels are loaded at their first launch.
  bool loads_lazily() const { return loads_lazily_; }
  // Whether another device may touch what cudaMallocAsync gave.
  bool shares_pool_with(int device) const { return (pool_shared_with_ >> device & 1) != 0; }
  void share_pool_with(int device, bool share);

  std::map<const void*, KernelRecord> kernels;
  std::map<std::uintptr_t, std::size_t> pinned;  // host ranges

 private:
  struct Name {
    std::uint32_t number = 0;
    bool visits = false;
    std::string text;
  };
  // The devices that have not done all that comes before the head of its queue.
  std::vector<int> awaited_by(const Stream& stream) const;
  bool advance(Posted& posted);
  void take_in_hand(std::uint32_t number, const Past& past);
  void finish(Stream& stream);
  void complete(int slot, std::uint32_t number);  // without the lock too
  std::uint32_t new_number(int slot, std::string text, bool visits);
  void drop_everything();
  void sweep();  // streams that are destroyed and empty, and slots of copies that are done

  int ordinal_;
  std::mt19937_64 random_;
  std::unique_ptr<DeviceMemory> memory_;
  std::uint64_t handles_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Stream>> streams_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Event>> events_;
  std::vector<Stream*> order_;  // streams, oldest first: [0] is the default stream
  std::array<std::atomic<std::uint32_t>, kStreamSlots> completed_{};  // by slot
  Clock host_{};
  Clock visited_{};                       // by slot: the last operation that streams elsewhere run
  std::uint64_t slots_in_use_ = 1;        // bits
  std::uint64_t visited_slots_ = 0;       // some of them
  std::uint64_t pool_shared_with_ = 0;    // bits, by device
  std::vector<std::uint8_t> slot_of_{0};  // by operation
  std::deque<Name> names_;                // of the latest operations
  int pending_ = 0;
  bool watched_ = false;  // others wait for events of this device
  std::atomic<bool> missed_{false};
  bool loads_lazily_;
  cudaError_t error_ = cudaSuccess;
  cudaError_t story_error_ = cudaSuccess;
  std::string story_;
};

// Devices are made when they are first used.
Device& device(int ordinal);
// Those in use.
std::vector<Device*> devices();
void forget_devices();
void add_leaks(const Objects& objects);

// What CUDA_MODULE_LOADING says: all kernels at once, or each at its first launch.
bool modules_are_lazy();

const Settings& settings();
const GpuModel& model();
int declared_registers(const std::string& kernel);  // 0: not declared

std::string name_operation(int device, std::uint32_t operation);
// Keeps the first.
void keep_fault(FaultKind kind, const std::string& what);

// A call that its documentation forbids: the error it gives, and why. Does not stick.
class ApiError : public Fault {
 public:
  ApiError(cudaError_t error, const std::string& what, FaultKind kind = FaultKind::kApi)
      : Fault(kind, what), error_(error) {}
  cudaError_t error() const { return error_; }

 private:
  cudaError_t error_;
};

bool exists(int device);  // on this machine
cudaMemPool_t pool_of(int device);

// The stream of the current device, or ApiError.
Stream& stream_of(Device& device, cudaStream_t handle);

}  // namespace sp::emulator
