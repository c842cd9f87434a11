// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/local/local_session.hpp"

namespace sp::SP_GPU {
namespace {

struct DeviceStorage : Storage {
  DeviceStorage(const Gpu& owner, std::int64_t size, const char* text) : gpu(owner) {
    data = gpu.allocate(size);
    bytes = size;
    name = text;
  }
  DeviceStorage(const DeviceStorage&) = delete;
  DeviceStorage& operator=(const DeviceStorage&) = delete;
  ~DeviceStorage() { gpu.release(data); }
  const Gpu& gpu;
};

}  // namespace

Tensor device_buffer(const Gpu& gpu, DType dtype, std::int64_t elements, const char* name) {
  const std::int64_t bytes = elements * static_cast<std::int64_t>(size_of(dtype));
  return {std::make_shared<DeviceStorage>(gpu, bytes, name), dtype, {elements, 1, 1, 1}};
}

EventPool::~EventPool() {
  for (const cudaEvent_t event : idle_) cudaEventDestroy(event);
}

SharedEvent EventPool::take() {
  cudaEvent_t event = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      event = idle_.back();
      idle_.pop_back();
    }
  }
  if (event == nullptr) event = make_event(cudaEventDisableTiming);
  return {event, [pool = shared_from_this()](cudaEvent_t used) {
            const std::lock_guard lock(pool->mutex_);
            pool->idle_.push_back(used);
          }};
}

LocalSession::~LocalSession() {
  gpu_.set_watcher({});
  for (const auto* timers : {&waits_, &transfers_})
    for (const Timers::Timer& timer : *timers) timers_.put_back(timer);
}

void LocalSession::wait_for(const std::vector<SharedEvent>& events) {
  const cudaStream_t compute = gpu_.compute();
  if (measuring_) {
    waits_.push_back(timers_.take());
    record(waits_.back().first, compute);
  }
  for (const SharedEvent& event : events)
    if (event != nullptr)
      check(cudaStreamWaitEvent(compute, event.get(), 0), "cudaStreamWaitEvent");
  if (measuring_) record(waits_.back().second, compute);
}

LocalSession::Cost LocalSession::take() {
  gpu_.synchronize();
  return {timers_.seconds_of(waits_), timers_.seconds_of(transfers_)};
}

}  // namespace sp::SP_GPU
