// LocalTransfer: a posted group of messages between tensors on devices.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "optimized/comm/local/local_session.hpp"
#include "optimized/comm/thread/thread_board.hpp"

namespace sp::SP_GPU {

class LocalTransfer final : public ThreadTransfer {
 public:
  // What the compute stream holds now comes before all its messages; `stream` is where copies to this
  // rank run.
  LocalTransfer(std::shared_ptr<LocalSession> session, cudaStream_t stream,
                std::shared_ptr<ThreadBoard> board, std::int64_t communicator,
                const Channel& channel, int rank, std::size_t parts);
  // What was sent or received is released behind the copies.
  ~LocalTransfer() override;

  // Once it is done: orders the compute stream after all its copies.
  void settle();

 protected:
  void bring(Part& received, ThreadTransfer& sender, Part& sent) override;

 private:
  std::size_t index_of(const Part& part) const;

  std::shared_ptr<LocalSession> session_;
  cudaStream_t stream_;
  SharedEvent ready_;                  // on the compute stream: buffers may be read and written
  std::vector<SharedEvent> moved_;     // by part: its copy; null while it is unmatched
  std::vector<Timers::Timer> timers_;  // by part, of what is received; empty if nobody measures
  bool settled_ = false;
};

}  // namespace sp::SP_GPU
