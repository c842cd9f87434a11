// WaitingCommunicator: measures how long its rank stands in waits, which is the communication that
// no computation hides.
//
// Communicators split from it add to the same sum. Used by the thread of its rank.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>

#include "optimized/comm/decorator.hpp"

namespace sp {

class WaitingCommunicator final : public CommunicatorDecorator {
 public:
  explicit WaitingCommunicator(Communicator& inner);  // which must outlive this one

  std::chrono::nanoseconds waited() const { return *waited_; }  // in all waits so far

 protected:
  std::unique_ptr<Operation> start(Request request) override;
  std::unique_ptr<Communicator> start_split(int colour, int key) override;

 private:
  using Sum = std::shared_ptr<std::chrono::nanoseconds>;

  WaitingCommunicator(std::unique_ptr<Communicator> inner, Sum waited);

  Sum waited_;
};

}  // namespace sp
