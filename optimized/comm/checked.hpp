// CheckedCommunicator: finds whoever touches a buffer while it is in flight. For tests.
//
// Receives   are filled with NaN at the post; the data arrives in a shadow and is copied in at the
//            wait. So a read that comes too early computes NaN, and a write is found at the wait.
// Sends      are compared at the wait with a copy taken at the post.
// Kernels    are checked before they run, when they observe: kernels.observe(&checked).
// Waits      that never came are reported by finish().
// Orders     of posts to several communicators are compared between the ranks by check_orders().
//
// Communicators split from a checked one share its book, so that a buffer may not be in flight
// twice on different ones either. Host data only; used by the thread of its rank.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "optimized/comm/decorator.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

class FlightBook;

class CheckedCommunicator final : public CommunicatorDecorator, public KernelObserver {
 public:
  explicit CheckedCommunicator(Communicator& inner);
  explicit CheckedCommunicator(std::unique_ptr<Communicator> inner);

  // Throws Error(kInternal) if the kernel touches what is in flight.
  void before(const Charge& charge, std::span<const Tensor> reads,
              std::span<const Tensor> writes) override;

  // Throws Error(kInternal) with the operations that nobody waited for, on any of the rank's
  // communicators.
  void finish() const;
  // Throws Error(kInternal) on the ranks whose posts to several communicators come in orders that do
  // not agree (post_order.hpp). Collective, on the communicator that others were split from.
  void check_orders();

 protected:
  std::unique_ptr<Operation> start(Request request) override;
  std::unique_ptr<Communicator> start_split(int colour, int key) override;

 private:
  CheckedCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<FlightBook> book,
                      std::uint64_t id);

  void note(const Request& request);

  std::shared_ptr<FlightBook> book_;
  std::uint64_t id_ = 0;                          // the same on all of its ranks
  std::map<int, std::uint64_t> sent_, received_;  // messages so far, by peer
  std::uint64_t collectives_ = 0, splits_ = 0;
};

}  // namespace sp
