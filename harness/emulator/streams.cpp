// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/streams.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/stream_operations.hpp"

namespace sp::emulator {
namespace {

constexpr std::size_t kNames = 4096;

// The device in the upper half of a handle, a serial number in the lower.
template <class Handle>
Handle make_handle(int device, std::uint64_t serial) {
  return reinterpret_cast<Handle>(static_cast<std::uint64_t>(device + 1) << 40 | serial);
}
template <class Handle>
std::uint64_t serial_of(Handle handle) {
  return reinterpret_cast<std::uint64_t>(handle);
}

cudaError_t error_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kOutOfBounds:
    case FaultKind::kUseAfterFree:
      return cudaErrorIllegalAddress;
    case FaultKind::kMisaligned:
      return cudaErrorMisalignedAddress;
    default:
      return cudaErrorLaunchFailure;
  }
}

}  // namespace

void join(Clock& into, const Clock& from) {
  for (std::size_t slot = 0; slot < into.size(); ++slot) {
    into[slot] = std::max(into[slot], from[slot]);
  }
}

void join(Past& into, const Past& from) {
  for (const auto& [device, clock] : from) join(into[device], clock);
}

const Clock& clock_of(const Past& past, int device) {
  static const Clock nothing{};
  const auto found = past.find(device);
  return found == past.end() ? nothing : found->second;
}

bool done(const Past& past) {
  return std::all_of(past.begin(), past.end(),
                     [](const auto& entry) { return device(entry.first).done(entry.second); });
}

Device::Device(int ordinal)
    : ordinal_(ordinal),
      random_(settings().seed * 1000003 + static_cast<std::uint64_t>(ordinal)),
      loads_lazily_(modules_are_lazy()) {
  reset();
}

Device::~Device() { install(ordinal_, nullptr); }

// ---- Handles -----------------------------------------------------------------------------------

cudaStream_t Device::add_stream(bool blocking) {
  sweep();
  const int slot = std::countr_one(slots_in_use_);
  if (slot >= kStreamSlots) return nullptr;
  slots_in_use_ |= std::uint64_t{1} << slot;
  auto stream = std::make_unique<Stream>();
  stream->slot = slot;
  stream->blocking = blocking;
  const auto handle = make_handle<cudaStream_t>(ordinal_, ++handles_);
  order_.push_back(stream.get());
  streams_[serial_of(handle)] = std::move(stream);
  return handle;
}

Stream* Device::find(cudaStream_t handle) {
  const auto found = streams_.find(serial_of(handle));
  return found == streams_.end() || found->second->destroyed ? nullptr : found->second.get();
}

void Device::remove_stream(cudaStream_t handle) {
  streams_.at(serial_of(handle))->destroyed = true;
  sweep();
}

// Only if the host has waited for all of it may another stream get its slot: operations of the
// old stream would count as ordered before those of the new one.
void Device::sweep() {
  std::erase_if(streams_, [&](const auto& entry) {
    const Stream& stream = *entry.second;
    const auto slot = static_cast<std::size_t>(stream.slot);
    if (!stream.destroyed || !stream.queue.empty() ||
        host_[slot] < clock_of(stream.past, ordinal_)[slot]) {
      return false;
    }
    slots_in_use_ &= ~(std::uint64_t{1} << slot);
    std::erase(order_, &stream);
    return true;
  });
  for (std::size_t slot = 0; slot < host_.size(); ++slot) {
    const std::uint64_t bit = std::uint64_t{1} << slot;
    if ((visited_slots_ & bit) == 0 || host_[slot] < visited_[slot]) continue;
    visited_slots_ &= ~bit;
    slots_in_use_ &= ~bit;
  }
}

Stream* Device::any_other_stream(const Stream& than) {
  std::vector<Stream*> others;
  for (Stream* stream : order_) {
    if (stream != &than && stream->slot != 0 && !stream->destroyed) others.push_back(stream);
  }
  return others.empty() ? nullptr : others[random() % others.size()];
}

cudaEvent_t Device::add_event(bool timed) {
  const auto handle = make_handle<cudaEvent_t>(ordinal_, ++handles_);
  auto event = std::make_unique<Event>();
  event->timed = timed;
  events_[serial_of(handle)] = std::move(event);
  return handle;
}

Event* Device::find(cudaEvent_t handle) {
  const auto found = events_.find(serial_of(handle));
  return found == events_.end() ? nullptr : found->second.get();
}

void Device::remove_event(cudaEvent_t handle) { events_.erase(serial_of(handle)); }

Objects Device::objects() const {
  Objects result;
  result.streams = static_cast<int>(std::count_if(
      order_.begin() + 1, order_.end(), [](const Stream* stream) { return !stream->destroyed; }));
  result.events = static_cast<int>(events_.size());
  result.allocations = memory_->live();
  result.pinned = static_cast<int>(pinned.size());
  return result;
}

// ---- Posting -----------------------------------------------------------------------------------

std::uint32_t Device::new_number(int slot, std::string text, bool visits) {
  const std::uint32_t number = next_number();
  slot_of_.push_back(static_cast<std::uint8_t>(slot));
  memory_->shadow().slot_of = slot_of_.data();
  names_.push_back({number, visits, std::move(text)});
  if (names_.size() > kNames) names_.pop_front();
  return number;
}

std::uint32_t Device::post(Stream& stream, std::unique_ptr<StreamOperation> body, Visit visit) {
  const std::uint32_t number = new_number(stream.slot, body->describe(), /*visits=*/false);
  join(stream.past[ordinal_], host_);
  // The default stream and the blocking ones wait for each other.
  for (const Stream* other : order_) {
    if (stream.blocking && other->blocking && (stream.slot == 0 || other->slot == 0)) {
      join(stream.past, other->past);
    }
  }
  stream.past[ordinal_][static_cast<std::size_t>(stream.slot)] = number;
  stream.queue.push_back({number, stream.past, std::move(body), visit});
  ++pending_;
  note_progress();
  return number;
}

void Device::record(Event& event, Stream& stream) {
  event.recorded = true;
  event.milliseconds = std::make_shared<double>(-1);
  post(stream, std::make_unique<RecordOperation>(event.milliseconds));
  event.past = stream.past;
}

std::string Device::name_of_operation(std::uint32_t number) const {
  if (number == 0) return "the host";
  const auto found =
      std::lower_bound(names_.begin(), names_.end(), number,
                       [](const Name& name, std::uint32_t wanted) { return name.number < wanted; });
  if (found == names_.end() || found->number != number) return fmt::format("operation {}", number);
  if (found->visits) return fmt::format("{} (operation {})", found->text, number);
  return fmt::format("{} (operation {}, stream {})", found->text, number,
                     static_cast<int>(slot_of_[number]));
}

// ---- Running -----------------------------------------------------------------------------------

bool Device::done(const Clock& clock) const {
  for (std::size_t slot = 0; slot < clock.size(); ++slot) {
    if (completed_[slot].load(std::memory_order_acquire) < clock[slot]) return false;
  }
  return true;
}

Past Device::everything() const {
  Past past{{ordinal_, host_}};
  for (const Stream* stream : order_) join(past, stream->past);
  return past;
}

std::vector<int> Device::awaited_by(const Stream& stream) const {
  const Posted& head = stream.queue.front();
  std::vector<int> result;
  for (const auto& [other, clock] : head.past) {
    Clock before = clock;
    if (other == ordinal_) before[static_cast<std::size_t>(stream.slot)] = 0;
    if (other == head.visit.device) before[static_cast<std::size_t>(head.visit.slot)] = 0;
    if (!device(other).done(before)) result.push_back(other);
  }
  return result;
}

Device::Step Device::step() {
  std::vector<Stream*> candidates;
  Step result = Step::kNothing;
  for (Stream* stream : order_) {
    if (stream->queue.empty()) continue;
    const std::vector<int> awaited = awaited_by(*stream);
    if (awaited.empty()) {
      candidates.push_back(stream);
    } else if (awaited != std::vector{ordinal_}) {
      result = Step::kElsewhere;
    }
  }
  std::shuffle(candidates.begin(), candidates.end(), random_);
  for (Stream* stream : candidates) {
    const Visit& visit = stream->queue.front().visit;
    std::unique_lock<std::mutex> there;
    if (visit.device >= 0) {
      Device& other = device(visit.device);
      there = std::unique_lock(other.mutex, std::try_to_lock);
      if (!there.owns_lock()) {
        other.missed_ = true;
        result = Step::kBusy;
        continue;
      }
    }
    if (advance(stream->queue.front())) {
      if (error_ == cudaSuccess) finish(*stream);
      return Step::kMoved;
    }
  }
  return result;
}

void Device::take_in_hand(std::uint32_t number, const Past& past) {
  memory_->shadow().operation = number;
  memory_->shadow().clock = clock_of(past, ordinal_).data();
}

// True also if it failed: something happened.
bool Device::advance(Posted& posted) {
  const Visit& visit = posted.visit;
  take_in_hand(posted.number, posted.past);
  if (visit.device >= 0) device(visit.device).take_in_hand(visit.number, posted.past);
  try {
    return posted.body->advance({posted.number, 0, ordinal_});
  } catch (const Fault& fault) {
    fail(fault.kind(), fmt::format("{}: {}", name_of_operation(posted.number), fault.what()));
  } catch (const std::exception& exception) {
    fail(FaultKind::kApi,
         fmt::format("{}: {}", name_of_operation(posted.number), exception.what()));
  }
  return true;
}

void Device::complete(int slot, std::uint32_t number) {
  std::atomic<std::uint32_t>& last = completed_[static_cast<std::size_t>(slot)];
  std::uint32_t before = last.load(std::memory_order_relaxed);
  while (before < number &&
         !last.compare_exchange_weak(before, number, std::memory_order_release)) {
  }
}

void Device::finish(Stream& stream) {
  const std::uint32_t number = stream.queue.front().number;
  const Visit visit = stream.queue.front().visit;
  stream.queue.pop_front();
  if (visit.device >= 0) device(visit.device).complete(visit.slot, visit.number);
  complete(stream.slot, number);
  --pending_;
  watched_ ? notify_all_hosts() : note_progress();
}

void Device::run_early(Stream& stream) {
  Posted posted = std::move(stream.queue.back());
  stream.queue.pop_back();
  advance(posted);
  if (error_ != cudaSuccess) return;
  stream.queue.push_back({posted.number, posted.past, std::make_unique<NothingLeft>(), {}});
}

std::string Device::heads() const {
  std::string text;
  for (const Stream* stream : order_) {
    if (stream->queue.empty()) continue;
    const Posted& head = stream->queue.front();
    text += fmt::format("\n  device {}, stream {}: {}", ordinal_, stream->slot,
                        name_of_operation(head.number));
    for (const int other : awaited_by(*stream)) {
      text +=
          other == ordinal_ ? ", behind another stream" : fmt::format(", behind device {}", other);
    }
    if (stream->queue.size() > 1) text += fmt::format(", {} more", stream->queue.size() - 1);
  }
  return text;
}

// ---- Errors ------------------------------------------------------------------------------------

void Device::fail(FaultKind kind, const std::string& what) {
  const std::string story = fmt::format("device {}, {}: {}", ordinal_, name_of(kind), what);
  keep_fault(kind, story);
  if (error_ == cudaSuccess) {
    error_ = error_of(kind);
    tell(error_, story);
  }
  drop_everything();
  notify_all_hosts();
}

void Device::recover() {
  error_ = cudaSuccess;
  tell(cudaSuccess, "");
}

void Device::reset() {
  drop_everything();
  recover();
  pool_shared_with_ = 0;
  events_.clear();
  streams_.clear();
  auto fallback = std::make_unique<Stream>();
  fallback->blocking = true;
  order_ = {fallback.get()};
  streams_[0] = std::move(fallback);
  slots_in_use_ = visited_slots_ | 1;
  kernels.clear();
  for (const auto& range : pinned) std::free(reinterpret_cast<void*>(range.first));
  pinned.clear();
  memory_.reset();
  memory_ = std::make_unique<DeviceMemory>(ordinal_);
  memory_->shadow().slot_of = slot_of_.data();
  install(ordinal_, memory_.get());
}

void Device::tell(cudaError_t error, std::string story) {
  story_error_ = error;
  story_ = std::move(story);
}

void Device::drop_everything() {
  for (Stream* stream : order_) {
    std::deque<Posted> queue = std::move(stream->queue);
    stream->queue.clear();
    for (Posted& posted : queue) {
      if (auto* own = dynamic_cast<BlockOperation*>(posted.body.get())) {
        own->settle(posted.number);
      }
      if (const Visit& visit = posted.visit; visit.device >= 0) {
        device(visit.device).complete(visit.slot, visit.number);
      }
    }
    complete(stream->slot,
             clock_of(stream->past, ordinal_)[static_cast<std::size_t>(stream->slot)]);
  }
  pending_ = 0;
  join(host_, clock_of(everything(), ordinal_));
}

}  // namespace sp::emulator
