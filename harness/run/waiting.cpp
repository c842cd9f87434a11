// SPDX-License-Identifier: Apache-2.0
#include "harness/run/waiting.hpp"

#include <utility>

namespace sp {
namespace {

class TimedOperation final : public Operation {
 public:
  TimedOperation(std::unique_ptr<Operation> inner, std::shared_ptr<std::chrono::nanoseconds> waited)
      : inner_(std::move(inner)), waited_(std::move(waited)) {}

  void wait() override {
    const auto begin = std::chrono::steady_clock::now();
    inner_->wait();
    *waited_ += std::chrono::steady_clock::now() - begin;
  }

 private:
  std::unique_ptr<Operation> inner_;
  std::shared_ptr<std::chrono::nanoseconds> waited_;
};

}  // namespace

WaitingCommunicator::WaitingCommunicator(Communicator& inner)
    : CommunicatorDecorator(inner), waited_(std::make_shared<std::chrono::nanoseconds>(0)) {}

WaitingCommunicator::WaitingCommunicator(std::unique_ptr<Communicator> inner, Sum waited)
    : CommunicatorDecorator(std::move(inner)), waited_(std::move(waited)) {}

std::unique_ptr<Operation> WaitingCommunicator::start(Request request) {
  return std::make_unique<TimedOperation>(start_inner(std::move(request)), waited_);
}

std::unique_ptr<Communicator> WaitingCommunicator::start_split(int colour, int key) {
  return std::unique_ptr<Communicator>(new WaitingCommunicator(split_inner(colour, key), waited_));
}

}  // namespace sp
