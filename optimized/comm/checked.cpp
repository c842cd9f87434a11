// Shadows for what arrives, copies of what leaves.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/checked.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <numeric>
#include <utility>
#include <vector>

#include "optimized/comm/envelope.hpp"
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

std::uint64_t mixed(std::initializer_list<std::uint64_t> numbers) {
  std::uint64_t hash = 0x9e3779b97f4a7c15u;
  for (const std::uint64_t number : numbers) {
    hash = (hash ^ number) * 0xd1342543de82ef95u;
    hash ^= hash >> 29;
  }
  return hash;
}

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
    : CheckedCommunicator(std::move(inner), std::make_shared<FlightBook>(), 0) {}

CheckedCommunicator::CheckedCommunicator(std::unique_ptr<Communicator> inner,
                                         std::shared_ptr<FlightBook> book, std::uint64_t id)
    : CommunicatorDecorator(std::move(inner)), book_(std::move(book)), id_(id) {}

void CheckedCommunicator::before(const Charge& charge, std::span<const Tensor> reads,
                                 std::span<const Tensor> writes) {
  book_->check_kernel(charge.kernel, reads, writes);
}

void CheckedCommunicator::finish() const {
  const std::string left = book_->unfinished();
  if (left.empty()) return;
  throw Error(ErrorKind::kInternal, fmt::format("rank {} never waited for: {}", rank(), left));
}

// Every rank that takes part in a message or a collective gives it the same number.
void CheckedCommunicator::note(const Request& request) {
  std::vector<PostLog::Meeting> meetings;
  if (request.pattern == Pattern::kExchange) {
    const auto self = static_cast<std::uint64_t>(rank());
    for (const Message& send : request.sends) {
      const auto peer = static_cast<std::uint64_t>(send.peer);
      meetings.push_back(mixed({id_, 1, self, peer, sent_[send.peer]++}));
    }
    for (const Message& receive : request.receives) {
      const auto peer = static_cast<std::uint64_t>(receive.peer);
      meetings.push_back(mixed({id_, 1, peer, self, received_[receive.peer]++}));
    }
  } else {
    meetings.push_back(mixed({id_, 2, collectives_++}));
  }
  const auto& messages = request.sends.empty() ? request.receives : request.sends;
  if (messages.empty()) return;
  const Label label = messages.front().label;
  book_->posts().add(fmt::format("{} of {} step {} among {} ranks", name_of(request.pattern),
                                 label.tensor, label.step, size()),
                     std::move(meetings));
}

void CheckedCommunicator::check_orders() {
  const auto everybody = [&](const Tensor& mine, const Tensor& all,
                             const std::vector<std::int64_t>& rows) {
    Request request{Pattern::kAllGather, {{rank(), mine, {"posts", 0}}}, {}};
    std::int64_t begin = 0;
    for (int peer = 0; peer < size(); begin += rows[static_cast<std::size_t>(peer++)])
      request.receives.push_back(
          {peer, all.rows(begin, begin + rows[static_cast<std::size_t>(peer)]), {"posts", 0}});
    start_inner(std::move(request))->wait();
  };
  const auto words = [](std::int64_t count) {
    return host_buffer(DType::kI32, {count, 1, 1, 1}, "posts");
  };
  std::string text = book_->posts().text();
  text.resize((text.size() + 3) / 4 * 4, '\n');
  const auto count = static_cast<std::int64_t>(text.size() / 4);
  const Tensor length = words(1), lengths = words(size()), mine = words(count);
  *length.as<std::int32_t>() = static_cast<std::int32_t>(count);
  std::memcpy(mine.data(), text.data(), text.size());
  everybody(length, lengths, std::vector<std::int64_t>(static_cast<std::size_t>(size()), 1));
  const std::vector<std::int64_t> rows(lengths.as<std::int32_t>(),
                                       lengths.as<std::int32_t>() + size());
  const Tensor all = words(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  everybody(mine, all, rows);
  std::vector<PostLog> logs;
  const char* begin = reinterpret_cast<const char*>(all.data());
  for (const std::int64_t row : rows) {
    logs.push_back(PostLog::of_text({begin, static_cast<std::size_t>(4 * row)}));
    begin += 4 * row;
  }
  if (const std::string circle = conflict(logs); !circle.empty())
    throw Error(ErrorKind::kInternal,
                "communicators are used in different orders, which may hang: " + circle);
}

std::unique_ptr<Operation> CheckedCommunicator::start(Request request) {
  note(request);
  auto operation = shadow(request, book_);
  operation->set_inner(start_inner(std::move(request)));
  return operation;
}

std::unique_ptr<Communicator> CheckedCommunicator::start_split(int colour, int key) {
  const std::uint64_t id = mixed({id_, 3, splits_++, static_cast<std::uint64_t>(colour)});
  return std::unique_ptr<Communicator>(
      new CheckedCommunicator(split_inner(colour, key), book_, id));
}

}  // namespace sp
