// Posting on the board and sleeping until it changes.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/thread/thread_communicator.hpp"

#include <utility>

namespace sp {

ThreadCommunicator::ThreadCommunicator(std::shared_ptr<ThreadBoard> board, std::int64_t id,
                                       std::vector<int> members, int rank,
                                       std::shared_ptr<Traffic> traffic,
                                       std::shared_ptr<Stages> stages)
    : HostCommunicator(rank, static_cast<int>(members.size()), std::move(traffic),
                       std::move(stages)),
      board_(std::move(board)),
      id_(id),
      members_(std::move(members)) {}

std::shared_ptr<Transfer> ThreadCommunicator::post_messages(const Channel& channel,
                                                            std::vector<Message> sends,
                                                            std::vector<Message> receives) {
  auto transfer = make_transfer(channel, sends.size() + receives.size());
  auto part = transfer->parts().begin();
  for (auto* messages : {&sends, &receives}) {
    for (Message& message : *messages) {
      part->is_send = messages == &sends;
      part->peer = world_rank(message.peer);
      part->envelope = envelope_of(channel.pattern, message);
      part->data = std::move(message.data);
      ++part;
    }
  }
  board_->post(*transfer);
  return transfer;
}

void ThreadCommunicator::wait_for(Transfer& transfer) {
  const int me = world_rank(rank());
  const auto deadline = std::chrono::steady_clock::now() + board_->time_limit();
  while (true) {
    // Read before the transfer is looked at: what happens in between must end the sleep.
    const std::uint64_t seen = board_->events(me);
    advance_stages();
    if (transfer.done()) break;
    board_->sleep(me, static_cast<ThreadTransfer&>(transfer), seen, deadline);
  }
  settle(transfer);
}

std::shared_ptr<ThreadTransfer> ThreadCommunicator::make_transfer(const Channel& channel,
                                                                  std::size_t parts) {
  return std::make_shared<ThreadTransfer>(board_, id_, channel, world_rank(rank()), parts);
}

std::unique_ptr<Communicator> ThreadCommunicator::form_group(const Group& group) {
  std::vector<int> members;
  for (const int member : group.members) members.push_back(world_rank(member));
  const std::int64_t id = board_->communicator_id(id_, group.split, group.colour);
  return make_communicator(id, std::move(members), group.rank);
}

std::unique_ptr<Communicator> ThreadCommunicator::make_communicator(std::int64_t id,
                                                                    std::vector<int> members,
                                                                    int rank) {
  return std::make_unique<ThreadCommunicator>(board_, id, std::move(members), rank,
                                              shared_traffic(), stages());
}

}  // namespace sp
