// Shadows for what arrives, copies of what leaves.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/checked.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "optimized/comm/flight_book.hpp"
#include "optimized/comm/host_buffer.hpp"
#include "optimized/comm/overlap.hpp"

namespace sp {
namespace {

constexpr std::byte kPoison{0xff};  // all ones is a NaN in f64, f32, f16 and bf16

struct Shadowed {
  Message real;
  Tensor copy;  // of a send: what it held at the post; of a receive: where the data arrives
};

Shadowed shadow_of(const Message& message) {
  Shadowed shadowed{message, host_buffer(message.data.dtype(), message.data.shape(), "shadow")};
  copy_bytes(shadowed.copy, message.data);
  return shadowed;
}

void poison(const Tensor& tensor) {
  if (tensor.bytes() == 0) return;
  std::memset(tensor.data(), std::to_integer<int>(kPoison),
              static_cast<std::size_t>(tensor.bytes()));
}

bool is_poison(const Tensor& tensor) {
  return std::all_of(tensor.data(), tensor.data() + tensor.bytes(),
                     [](std::byte byte) { return byte == kPoison; });
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return std::equal(a.data(), a.data() + a.bytes(), b.data());
}

[[noreturn]] void report_touched(Direction direction, const Message& message) {
  throw Error(ErrorKind::kInternal, fmt::format("{} was written while in flight (tensor {})",
                                                describe(direction, message), message.data.name()));
}

class CheckedOperation final : public Operation {
 public:
  CheckedOperation(std::shared_ptr<FlightBook> book, FlightBook::Id id, std::vector<Shadowed> sends,
                   std::vector<Shadowed> receives)
      : book_(std::move(book)),
        id_(id),
        sends_(std::move(sends)),
        receives_(std::move(receives)),
        exceptions_(std::uncaught_exceptions()) {}

  ~CheckedOperation() override {
    if (finished_) return;
    // An error elsewhere is a good reason not to wait.
    std::uncaught_exceptions() > exceptions_ ? book_->leave(id_) : book_->abandon(id_);
  }

  void set_inner(std::unique_ptr<Operation> inner) { inner_ = std::move(inner); }

  void wait() override {
    finished_ = true;
    book_->leave(id_);
    inner_->wait();
    for (const Shadowed& send : sends_) {
      if (!same_bytes(send.real.data, send.copy)) report_touched(Direction::kSend, send.real);
    }
    for (const Shadowed& receive : receives_) {
      if (!is_poison(receive.real.data)) report_touched(Direction::kReceive, receive.real);
      copy_bytes(receive.real.data, receive.copy);
    }
  }

 private:
  std::shared_ptr<FlightBook> book_;
  FlightBook::Id id_;
  std::vector<Shadowed> sends_;
  std::vector<Shadowed> receives_;
  int exceptions_;
  bool finished_ = false;
  std::unique_ptr<Operation> inner_;  // dies first: it may still write into the shadows
};

// Takes the copies, poisons what is received, and redirects the request to the shadows.
std::unique_ptr<CheckedOperation> shadow(Request& request,
                                         const std::shared_ptr<FlightBook>& book) {
  const FlightBook::Id id = book->enter(request);
  std::vector<Shadowed> sends, receives;
  for (Message& send : request.sends) {
    const Shadowed copy = shadow_of(send);
    const bool in_place =
        std::any_of(request.receives.begin(), request.receives.end(),
                    [&](const Message& receive) { return overlaps(send.data, receive.data); });
    if (in_place) {
      send.data = copy.copy;  // the buffer itself is about to be poisoned
    } else {
      sends.push_back(copy);
    }
  }
  for (Message& receive : request.receives) {
    receives.push_back(shadow_of(receive));  // with its contents: all_reduce starts from them
    poison(receive.data);
    receive.data = receives.back().copy;
  }
  return std::make_unique<CheckedOperation>(book, id, std::move(sends), std::move(receives));
}

}  // namespace

CheckedCommunicator::CheckedCommunicator(Communicator& inner)
    : CommunicatorDecorator(inner), book_(std::make_shared<FlightBook>()) {}

CheckedCommunicator::CheckedCommunicator(std::unique_ptr<Communicator> inner)
    : CheckedCommunicator(std::move(inner), std::make_shared<FlightBook>()) {}

CheckedCommunicator::CheckedCommunicator(std::unique_ptr<Communicator> inner,
                                         std::shared_ptr<FlightBook> book)
    : CommunicatorDecorator(std::move(inner)), book_(std::move(book)) {}

void CheckedCommunicator::before(const Charge& charge, std::span<const Tensor> reads,
                                 std::span<const Tensor> writes) {
  book_->check_kernel(charge.kernel, reads, writes);
}

void CheckedCommunicator::finish() const {
  const std::string left = book_->unfinished();
  if (left.empty()) return;
  throw Error(ErrorKind::kInternal, fmt::format("rank {} never waited for: {}", rank(), left));
}

std::unique_ptr<Operation> CheckedCommunicator::start(Request request) {
  auto operation = shadow(request, book_);
  operation->set_inner(start_inner(std::move(request)));
  return operation;
}

std::unique_ptr<Communicator> CheckedCommunicator::start_split(int colour, int key) {
  return std::unique_ptr<Communicator>(new CheckedCommunicator(split_inner(colour, key), book_));
}

}  // namespace sp
