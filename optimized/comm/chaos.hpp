// ChaosCommunicator: an unkind but legal machine. For tests.
//
// Posts are deferred until a later post or wait of the rank, exchanges fall apart into single
// messages, everything starts in a random order, after random pauses. Kept are the rules of
// communicator.hpp: messages of one communicator between two ranks start in post order, its
// collectives pass nothing, and whoever waits has first started all that the rank has posted. Sent
// buffers are read as late as that allows, which exposes programs that write to them too early.
//
// The order is a function of the seed and the rank; the pauses act on what the machine makes of
// them. Communicators split from a chaotic one are chaotic and share its queue. Used by the thread
// of its rank.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "optimized/comm/decorator.hpp"

namespace sp {

class ChaosCommunicator final : public CommunicatorDecorator {
 public:
  ChaosCommunicator(Communicator& inner, std::uint64_t seed);
  ChaosCommunicator(std::unique_ptr<Communicator> inner, std::uint64_t seed);
  ~ChaosCommunicator() override;

 protected:
  std::unique_ptr<Operation> start(Request request) override;
  std::unique_ptr<Communicator> start_split(int colour, int key) override;

 private:
  class Queue;
  class Scattered;
  struct Slot;

  ChaosCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Queue> queue);

  std::shared_ptr<Queue> queue_;
};

}  // namespace sp
