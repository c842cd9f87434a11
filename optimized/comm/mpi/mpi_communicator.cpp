// Channels become tags.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/mpi/mpi_communicator.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace sp {
namespace {

// Any MPI has tags up to 32767. Numbers come round again only after as many messages, or
// collectives, as nobody has in flight at once.
constexpr std::int64_t kTags = 32768;

}  // namespace

MpiCommunicator::MpiCommunicator(std::shared_ptr<MpiEngine> engine, const MpiLanes& lanes,
                                 std::vector<int> members, int rank, const MpiOptions& options,
                                 std::shared_ptr<Traffic> traffic, std::shared_ptr<Stages> stages)
    : HostCommunicator(rank, static_cast<int>(members.size()), std::move(traffic),
                       std::move(stages)),
      engine_(std::move(engine)),
      lanes_(lanes),
      members_(std::move(members)),
      options_(options) {
  SP_CHECK(0 < options.piece_bytes && options.piece_bytes <= std::int64_t{1} << 30,
           "a piece has between 1 byte and 1 GiB");
}

MpiCommunicator::~MpiCommunicator() {
  // Freeing is collective, and an exception is not.
  if (std::uncaught_exceptions() == 0) lanes_.free();
}

std::shared_ptr<Transfer> MpiCommunicator::post_messages(const Channel& channel,
                                                         std::vector<Message> sends,
                                                         std::vector<Message> receives) {
  // Channel 0, which all exchanges share, keeps its tag for itself.
  const auto header_tag =
      static_cast<int>(channel.number == 0 ? 0 : 1 + channel.number % (kTags - 1));
  auto transfer =
      std::make_shared<MpiTransfer>(engine_, lanes_, options_.piece_bytes, members_, rank());
  for (const Message& message : receives) transfer->receive(message, channel.pattern, header_tag);
  for (const Message& message : sends) {
    transfer->send(message, channel.pattern, header_tag, static_cast<int>(sent_++ % kTags));
  }
  return transfer;
}

void MpiCommunicator::wait_for(Transfer& transfer) {
  engine_->wait(static_cast<MpiTransfer&>(transfer), options_.time_limit,
                [this] { advance_stages(); });
}

std::unique_ptr<Communicator> MpiCommunicator::form_group(const Group& group) {
  std::vector<int> members;
  for (const int member : group.members) {
    members.push_back(members_[static_cast<std::size_t>(member)]);
  }
  // The lowest member stands for the colour, which MPI does not let be negative.
  int lowest = group.members.front();
  for (const int member : group.members) lowest = std::min(lowest, member);
  return std::make_unique<MpiCommunicator>(engine_, lanes_.split(lowest, group.rank),
                                           std::move(members), group.rank, options_,
                                           shared_traffic(), stages());
}

}  // namespace sp
