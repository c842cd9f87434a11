// The queue of what is posted and not yet started.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/chaos.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace sp {

// Where a piece of an operation finds its inner operation once it has started.
struct ChaosCommunicator::Slot {
  std::unique_ptr<Operation> inner;
};

// Shared by the communicators of one rank.
class ChaosCommunicator::Queue {
 public:
  Queue(std::uint64_t seed, int rank) {
    std::seed_seq sequence{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                           static_cast<std::uint32_t>(rank)};
    random_.seed(sequence);
  }

  std::size_t draw(std::size_t bound) { return random_() % bound; }

  void add(ChaosCommunicator& comm, Request piece, const std::shared_ptr<Slot>& slot) {
    deferred_.push_back({&comm, std::move(piece), slot});
  }

  // Starts `count` pieces, each time one of those that may go first.
  void start(std::size_t count) {
    for (count = std::min(count, deferred_.size()); count > 0; --count) {
      std::vector<std::size_t> ready;
      for (std::size_t i = 0; i < deferred_.size(); ++i) {
        if (may_go_first(i)) ready.push_back(i);
      }
      const std::size_t chosen = ready[draw(ready.size())];
      Piece piece = std::move(deferred_[chosen]);
      deferred_.erase(deferred_.begin() + static_cast<std::ptrdiff_t>(chosen));
      const auto slot = piece.slot.lock();
      if (slot == nullptr) continue;  // destroyed without a wait, which only errors do
      slot->inner = piece.comm->start_inner(std::move(piece.request));
    }
  }
  void start_some() { start(draw(deferred_.size() + 1)); }
  void start_all() { start(deferred_.size()); }

  void forget(const ChaosCommunicator* comm) {
    std::erase_if(deferred_, [&](const Piece& piece) { return piece.comm == comm; });
  }

  // Mostly short: the point is another order among the ranks, not a slow test.
  void pause() {
    if (draw(2) == 0) return;
    if (draw(8) == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(draw(200)));
    } else {
      std::this_thread::yield();
    }
  }

 private:
  struct Piece {
    ChaosCommunicator* comm;
    Request request;
    std::weak_ptr<Slot> slot;
  };

  // An exchange in the queue is a single message.
  static bool keep_order(const Piece& earlier, const Piece& later) {
    if (earlier.comm != later.comm) return false;
    if (earlier.request.pattern != Pattern::kExchange) return true;
    if (later.request.pattern != Pattern::kExchange) return true;
    const auto same_peer = [](const std::vector<Message>& a, const std::vector<Message>& b) {
      return !a.empty() && !b.empty() && a.front().peer == b.front().peer;
    };
    return same_peer(earlier.request.sends, later.request.sends) ||
           same_peer(earlier.request.receives, later.request.receives);
  }

  bool may_go_first(std::size_t candidate) const {
    for (std::size_t i = 0; i < candidate; ++i) {
      if (keep_order(deferred_[i], deferred_[candidate])) return false;
    }
    return true;
  }

  std::mt19937_64 random_;
  std::vector<Piece> deferred_;
};

// An operation in pieces, some of which may still be in the queue.
class ChaosCommunicator::Scattered final : public Operation {
 public:
  Scattered(std::shared_ptr<Queue> queue, std::vector<std::shared_ptr<Slot>> slots)
      : queue_(std::move(queue)), slots_(std::move(slots)) {}

  void wait() override {
    queue_->pause();
    queue_->start_all();
    while (!slots_.empty()) {
      std::swap(slots_[queue_->draw(slots_.size())], slots_.back());
      // Empty if starting it failed, an error that somebody chose to survive.
      if (slots_.back()->inner != nullptr) slots_.back()->inner->wait();
      slots_.pop_back();
    }
  }

 private:
  std::shared_ptr<Queue> queue_;
  std::vector<std::shared_ptr<Slot>> slots_;
};

ChaosCommunicator::ChaosCommunicator(Communicator& inner, std::uint64_t seed)
    : CommunicatorDecorator(inner), queue_(std::make_shared<Queue>(seed, inner.rank())) {}

ChaosCommunicator::ChaosCommunicator(std::unique_ptr<Communicator> inner, std::uint64_t seed)
    : CommunicatorDecorator(std::move(inner)), queue_(std::make_shared<Queue>(seed, rank())) {}

ChaosCommunicator::ChaosCommunicator(std::unique_ptr<Communicator> inner,
                                     std::shared_ptr<Queue> queue)
    : CommunicatorDecorator(std::move(inner)), queue_(std::move(queue)) {}

ChaosCommunicator::~ChaosCommunicator() { queue_->forget(this); }

std::unique_ptr<Operation> ChaosCommunicator::start(Request request) {
  queue_->pause();
  queue_->start_some();
  std::vector<std::shared_ptr<Slot>> slots;
  const auto add = [&](Request piece) {
    slots.push_back(std::make_shared<Slot>());
    queue_->add(*this, std::move(piece), slots.back());
  };
  if (request.pattern != Pattern::kExchange) {
    add(std::move(request));
  } else {
    for (Message& send : request.sends) add({Pattern::kExchange, {std::move(send)}, {}});
    for (Message& receive : request.receives) add({Pattern::kExchange, {}, {std::move(receive)}});
  }
  if (queue_->draw(4) == 0) queue_->start_some();
  return std::make_unique<Scattered>(queue_, std::move(slots));
}

std::unique_ptr<Communicator> ChaosCommunicator::start_split(int colour, int key) {
  queue_->pause();
  queue_->start_all();  // a split waits for the other ranks
  return std::unique_ptr<Communicator>(new ChaosCommunicator(split_inner(colour, key), queue_));
}

}  // namespace sp
