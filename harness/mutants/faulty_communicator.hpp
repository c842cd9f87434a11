// The base of message faults: sees every request that an algorithm posts, and may change it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "optimized/comm/decorator.hpp"

namespace sp {

// What happens to a request on its way; one object per rank, shared by its split communicators.
class Fault {
 public:
  using Forward = std::function<std::unique_ptr<Operation>(Request)>;

  virtual ~Fault() = default;
  virtual std::unique_ptr<Operation> start(Request request, int rank, int size,
                                           const Forward& forward) = 0;
};

class FaultyCommunicator final : public CommunicatorDecorator {
 public:
  FaultyCommunicator(Communicator& inner, std::shared_ptr<Fault> fault)
      : CommunicatorDecorator(inner), fault_(std::move(fault)) {}
  FaultyCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Fault> fault)
      : CommunicatorDecorator(std::move(inner)), fault_(std::move(fault)) {}

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    return fault_->start(std::move(request), rank(), size(),
                         [this](Request changed) { return start_inner(std::move(changed)); });
  }
  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    return std::make_unique<FaultyCommunicator>(split_inner(colour, key), fault_);
  }

 private:
  std::shared_ptr<Fault> fault_;
};

template <class SomeFault>
std::unique_ptr<Communicator> inject(Communicator& inner) {
  return std::make_unique<FaultyCommunicator>(inner, std::make_shared<SomeFault>());
}

}  // namespace sp
