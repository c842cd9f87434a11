// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/local/local_transfer.hpp"

#include <utility>

namespace sp::SP_GPU {
namespace {

// Makes a device current for a while: whoever posts second may be the thread of another one.
class OnDevice {
 public:
  explicit OnDevice(int ordinal) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (ordinal != before_) check(cudaSetDevice(ordinal), "cudaSetDevice");
    changed_ = ordinal != before_;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace

LocalTransfer::LocalTransfer(std::shared_ptr<LocalSession> session, cudaStream_t stream,
                             std::shared_ptr<ThreadBoard> board, std::int64_t communicator,
                             const Channel& channel, int rank, std::size_t parts)
    : ThreadTransfer(std::move(board), communicator, channel, rank, parts),
      session_(std::move(session)),
      stream_(stream),
      ready_(session_->take_event()),
      moved_(parts) {
  record(ready_.get(), session_->gpu().compute());
  if (!session_->measuring()) return;
  for (std::size_t i = 0; i < parts; ++i) timers_.push_back(session_->take_timer());
}

LocalTransfer::~LocalTransfer() {
  withdraw();
  try {
    settle();
  } catch (const Error&) {  // the device has failed: nothing of it is in use any more
  }
  for (std::size_t i = 0; i < timers_.size(); ++i) {
    const bool counts = moved_[i] != nullptr && !parts()[i].is_send;
    counts ? session_->count_transfer(timers_[i]) : session_->put_back(timers_[i]);
  }
}

void LocalTransfer::settle() {
  if (std::exchange(settled_, true)) return;
  session_->wait_for(moved_);
}

std::size_t LocalTransfer::index_of(const Part& part) const {
  return static_cast<std::size_t>(&part - const_cast<LocalTransfer*>(this)->parts().data());
}

void LocalTransfer::bring(Part& received, ThreadTransfer& sender, Part& sent) {
  auto& from = static_cast<LocalTransfer&>(sender);
  const OnDevice device(session_->gpu().ordinal());
  const std::size_t place = index_of(received);
  const SharedEvent done = session_->take_event();
  for (const cudaEvent_t ready : {from.ready_.get(), ready_.get()})
    check(cudaStreamWaitEvent(stream_, ready, 0), "cudaStreamWaitEvent");
  if (!timers_.empty()) record(timers_[place].first, stream_);
  if (const std::int64_t bytes = received.data.bytes(); bytes > 0) {
    check(cudaMemcpyAsync(received.data.data(), sent.data.data(), static_cast<std::size_t>(bytes),
                          cudaMemcpyDeviceToDevice, stream_),
          "cudaMemcpyAsync between ranks");
  }
  if (!timers_.empty()) record(timers_[place].second, stream_);
  record(done.get(), stream_);
  moved_[place] = done;
  from.moved_[from.index_of(sent)] = done;
}

}  // namespace sp::SP_GPU
