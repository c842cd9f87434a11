// ThreadCommunicator: one rank's end of a ThreadWorld.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "optimized/comm/host_communicator.hpp"
#include "optimized/comm/thread/thread_board.hpp"

namespace sp {

class ThreadCommunicator : public HostCommunicator {
 public:
  // members: the world's ranks in the order of this communicator's.
  ThreadCommunicator(std::shared_ptr<ThreadBoard> board, std::int64_t id, std::vector<int> members,
                     int rank, std::shared_ptr<Traffic> traffic, std::shared_ptr<Stages> stages);

 protected:
  std::shared_ptr<Transfer> post_messages(const Channel& channel, std::vector<Message> sends,
                                          std::vector<Message> receives) override;
  void wait_for(Transfer& transfer) override;
  std::unique_ptr<Communicator> form_group(const Group& group) override;

  virtual std::shared_ptr<ThreadTransfer> make_transfer(const Channel& channel, std::size_t parts);
  // Another communicator of this rank.
  virtual std::unique_ptr<Communicator> make_communicator(std::int64_t id, std::vector<int> members,
                                                          int rank);

  int world_rank(int rank) const { return members_[static_cast<std::size_t>(rank)]; }
  const std::shared_ptr<ThreadBoard>& board() const { return board_; }
  std::int64_t id() const { return id_; }

 private:
  std::shared_ptr<ThreadBoard> board_;
  std::int64_t id_;
  std::vector<int> members_;
};

}  // namespace sp
