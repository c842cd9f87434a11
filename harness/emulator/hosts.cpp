// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/hosts.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <vector>

namespace sp::emulator {
namespace {

using Lock = std::unique_lock<std::mutex>;
using Steady = std::chrono::steady_clock;

constexpr auto kNap = std::chrono::milliseconds(1);
// A thread that asks this often without any progress between waits as if it were blocked.
constexpr int kPatientPolls = 50;
// Even if some host thread neither waits nor asks.
constexpr auto kPatience = std::chrono::seconds(60);
constexpr std::uint64_t kNever = ~std::uint64_t{0};

std::mutex mutex;  // a leaf: nothing else is locked under it
std::condition_variable moved;
std::atomic<std::uint64_t> progress{0};
std::atomic<int> sleepers{0};

struct Host;
std::vector<Host*> hosts;
std::uint64_t epoch = 1;

struct Host {
  ~Host() { leave(); }
  void enter() {
    stuck_at.store(kNever, std::memory_order_relaxed);
    const std::lock_guard lock(mutex);
    if (member_of == epoch) return;
    member_of = epoch;
    hosts.push_back(this);
  }
  void leave() {
    {
      const std::lock_guard lock(mutex);
      std::erase(hosts, this);
      member_of = 0;
    }
    notify_all_hosts();
  }

  int device = 0;
  std::uint64_t member_of = 0;                  // epoch
  std::atomic<std::uint64_t> stuck_at{kNever};  // the progress since which it found nothing to do
  std::uint64_t polled_at = kNever;
  int polls = 0;
  cudaError_t last_error = cudaSuccess;
};
thread_local Host self;

// Until something moves, or for a moment. True: it did.
bool nap(std::uint64_t since) {
  Lock lock(mutex);
  sleepers.fetch_add(1);
  moved.wait_for(lock, kNap, [&] { return progress.load() != since; });
  sleepers.fetch_sub(1);
  return progress.load() != since;
}

enum class Help : std::uint8_t { kMoved, kBusy, kNothing };

Help help_others(const Device& own) {
  Help result = Help::kNothing;
  for (Device* other : devices()) {
    if (other == &own) continue;
    Lock lock(other->mutex, std::try_to_lock);
    if (!lock.owns_lock()) {
      result = Help::kBusy;
      continue;
    }
    const Device::Step step = other->idle() ? Device::Step::kNothing : other->step();
    lock.unlock();
    other->released();
    if (step == Device::Step::kMoved) return Help::kMoved;
    if (step == Device::Step::kBusy) result = Help::kBusy;
  }
  return result;
}

bool all_stuck(std::uint64_t since) {
  const std::lock_guard lock(mutex);
  return progress.load() == since && std::all_of(hosts.begin(), hosts.end(), [&](Host* host) {
           return host->stuck_at.load() == since;
         });
}

void declare_deadlock() {
  std::string story = "every host thread waits and no stream can go on";
  for (Device* each : devices()) {
    const Lock lock(each->mutex);
    story += each->heads();
  }
  for (Device* each : devices()) {
    const Lock lock(each->mutex);
    if (!each->idle()) each->fail(FaultKind::kDeadlock, story);
  }
}

// Nothing could be done for the own device since `since`: rests, helps, gives up.
void rest(Device& own, Lock& lock, Device::Step step, std::uint64_t since,
          Steady::time_point waiting_from) {
  lock.unlock();
  own.released();
  const bool helped = step == Device::Step::kElsewhere && help_others(own) == Help::kMoved;
  if (!helped && !nap(since)) {
    const Help help = help_others(own);
    const bool patience_over = Steady::now() - waiting_from > kPatience;
    if (help == Help::kNothing && progress.load() == since && (all_stuck(since) || patience_over)) {
      declare_deadlock();
    }
  }
  lock.lock();
}

// The host knows that all of that is done.
void join_hosts(Device& own, Lock& lock, const Past& what) {
  own.join_host(clock_of(what, own.ordinal()));
  if (what.size() == 1) return;
  lock.unlock();
  for (const auto& [ordinal, clock] : what) {
    if (ordinal == own.ordinal()) continue;
    Device& other = device(ordinal);
    const Lock there(other.mutex);
    other.join_host(clock);
  }
  lock.lock();
}

}  // namespace

int current_device() { return self.device; }
void set_current_device(int ordinal) { self.device = ordinal; }
void enter_host() { self.enter(); }
void leave_host() { self.leave(); }

void forget_hosts() {
  const std::lock_guard lock(mutex);
  hosts.clear();
  ++epoch;
}

void note_progress() { progress.fetch_add(1); }

void notify_all_hosts() {
  progress.fetch_add(1);
  if (sleepers.load() == 0) return;
  {
    const std::lock_guard lock(mutex);
  }
  moved.notify_all();
}

cudaError_t run_until(Device& device, Lock& lock, const Past& what) {
  check_groups_closed("a wait");
  enter_host();
  std::uint64_t stuck = kNever;
  Steady::time_point from = Steady::now();
  for (;;) {
    if (device.error() != cudaSuccess || done(what)) break;
    const std::uint64_t since = progress.load();
    const Device::Step step = device.step();
    if (step == Device::Step::kMoved) continue;
    if (since != stuck) from = Steady::now();
    stuck = since;
    self.stuck_at.store(step == Device::Step::kBusy ? kNever : since);
    rest(device, lock, step, since, from);
  }
  self.stuck_at.store(kNever);
  return device.error();
}

cudaError_t wait_for(Device& device, Lock& lock, const Past& what) {
  const cudaError_t error = run_until(device, lock, what);
  if (error == cudaSuccess) join_hosts(device, lock, what);
  return error;
}

cudaError_t ask_for(Device& device, Lock& lock, const Past& what) {
  check_groups_closed("a query");
  if (self.polls == 0) enter_host();
  const std::uint64_t since = progress.load();
  const Device::Step step = done(what) ? Device::Step::kNothing : device.step();
  if (device.error() != cudaSuccess) return device.error();
  if (done(what)) {
    self.polls = 0;
    self.stuck_at.store(kNever);
    join_hosts(device, lock, what);
    return cudaSuccess;
  }
  if (step == Device::Step::kMoved) return cudaErrorNotReady;
  self.polls = self.polled_at == since ? self.polls + 1 : 1;
  self.polled_at = since;
  if (self.polls >= kPatientPolls && step != Device::Step::kBusy) self.stuck_at.store(since);
  rest(device, lock, step, since, Steady::now());
  return device.error() != cudaSuccess ? device.error() : cudaErrorNotReady;
}

cudaError_t returned(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) self.last_error = error;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  Device& device = emulator::device(self.device);
  const Lock lock(device.mutex);
  return device.error() != cudaSuccess ? device.error() : self.last_error;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  self.last_error = cudaSuccess;
  return error;
}

cudaError_t on_device(const char* call, const std::function<cudaError_t(Device&, Lock&)>& f,
                      bool releases) {
  return on_device(device(self.device), call, f, releases);
}

cudaError_t on_device(Device& device, const char* call,
                      const std::function<cudaError_t(Device&, Lock&)>& f, bool releases) {
  struct Release {
    Device& device;
    ~Release() { device.released(); }
  };
  const Release after_the_lock{device};
  Lock lock(device.mutex);
  const cudaError_t before = device.error();
  if (before != cudaSuccess && !releases) return returned(before);
  try {
    const cudaError_t error = f(device, lock);
    return returned(before != cudaSuccess ? before : error);
  } catch (const ApiError& error) {
    const std::string what = std::string(call) + ": " + error.what();
    keep_fault(error.kind(), what);
    if (before != cudaSuccess) return returned(before);
    device.tell(error.error(), what);
    return returned(error.error());
  }
}

}  // namespace sp::emulator
