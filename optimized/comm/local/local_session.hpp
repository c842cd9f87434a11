// LocalSession: what all communicators of one rank share: its GPU, its events, its clocks.
//
// Used by the thread of its rank, but for events, which go back from wherever they were used last.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "optimized/comm/gpu_world.hpp"
#include "optimized/kernels/cuda/timers.hpp"

namespace sp::SP_GPU {

// Shared by the two ranks of a message: recorded again when neither needs it any more.
using SharedEvent = std::shared_ptr<std::remove_pointer_t<cudaEvent_t>>;

class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  EventPool() = default;
  ~EventPool();
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;
  SharedEvent take();

 private:
  std::mutex mutex_;
  std::vector<cudaEvent_t> idle_;
};

class LocalSession final : public CommunicationMeter {
 public:
  explicit LocalSession(Gpu& gpu) : gpu_(gpu) {}
  ~LocalSession() override;
  LocalSession(const LocalSession&) = delete;
  LocalSession& operator=(const LocalSession&) = delete;

  const Gpu& gpu() const { return gpu_; }
  void set_watcher(std::function<void()> watcher) { gpu_.set_watcher(std::move(watcher)); }

  SharedEvent take_event() { return events_->take(); }
  // Orders the compute stream after the events.
  void wait_for(const std::vector<SharedEvent>& events);

  void measure(bool enabled) override { measuring_ = enabled; }
  Cost take() override;
  bool measuring() const { return measuring_; }
  Timers::Timer take_timer() { return timers_.take(); }
  void count_transfer(const Timers::Timer& timer) { transfers_.push_back(timer); }
  void put_back(const Timers::Timer& timer) { timers_.put_back(timer); }

 private:
  Gpu& gpu_;
  std::shared_ptr<EventPool> events_ = std::make_shared<EventPool>();
  bool measuring_ = false;
  Timers timers_;
  std::vector<Timers::Timer> waits_, transfers_;
};

// Memory for what arrives only to be summed: in stream order, on no ledger.
Tensor device_buffer(const Gpu& gpu, DType dtype, std::int64_t elements, const char* name);

}  // namespace sp::SP_GPU
