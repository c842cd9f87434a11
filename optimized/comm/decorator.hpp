// CommunicatorDecorator: stands before another communicator and sees every operation.
//
// Traffic is counted once, by the public functions of the outermost one: a decorator shares the
// counter of what it wraps and forwards to its protected functions.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "optimized/comm/communicator.hpp"

namespace sp {

class CommunicatorDecorator : public Communicator {
 protected:
  explicit CommunicatorDecorator(Communicator& inner)  // which must outlive the decorator
      : Communicator(inner.rank(), inner.size(), inner.shared_traffic()), inner_(inner) {}
  explicit CommunicatorDecorator(std::unique_ptr<Communicator> inner)
      : Communicator(inner->rank(), inner->size(), inner->shared_traffic()),
        owned_(std::move(inner)),
        inner_(*owned_) {}

  std::unique_ptr<Operation> start_inner(Request request) {
    return inner_.start(std::move(request));
  }
  std::unique_ptr<Communicator> split_inner(int colour, int key) {
    return inner_.start_split(colour, key);
  }

  std::unique_ptr<Operation> start(Request request) override {
    return start_inner(std::move(request));
  }
  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    return split_inner(colour, key);
  }

 private:
  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
};

}  // namespace sp
