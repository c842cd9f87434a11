// The rules of buffers in flight.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/flight_book.hpp"

#include <fmt/format.h>

#include "optimized/comm/envelope.hpp"
#include "optimized/comm/overlap.hpp"

namespace sp {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorKind::kInternal, text); }

}  // namespace

std::string describe(Direction direction, const Message& message) {
  return fmt::format("{} step {} {} rank {}", message.label.tensor, message.label.step,
                     direction == Direction::kSend ? "to" : "from", message.peer);
}

FlightBook::Id FlightBook::enter(const Request& request) {
  Flight flight;
  for (const Message& send : request.sends) flight.buffers.push_back({Direction::kSend, send});
  for (const Message& receive : request.receives) {
    flight.buffers.push_back({Direction::kReceive, receive});
  }
  flight.what = std::string(name_of(request.pattern));
  if (!flight.buffers.empty()) {
    const Buffer& first = flight.buffers.front();
    flight.what += " of " + describe(first.direction, first.message);
  }
  check_own_buffers(flight, request.pattern);
  check_other_flights(flight);
  flights_.emplace(++last_, std::move(flight));
  return last_;
}

// A collective may work in place; messages of one exchange may not.
void FlightBook::check_own_buffers(const Flight& flight, Pattern pattern) const {
  for (auto a = flight.buffers.begin(); a != flight.buffers.end(); ++a) {
    for (auto b = std::next(a); b != flight.buffers.end(); ++b) {
      const bool receives =
          a->direction == Direction::kReceive || b->direction == Direction::kReceive;
      const bool in_place = a->direction != b->direction && pattern != Pattern::kExchange &&
                            a->message.data.data() == b->message.data.data() &&
                            a->message.data.bytes() == b->message.data.bytes();
      if (!receives || in_place || !overlaps(a->message.data, b->message.data)) continue;
      refuse(fmt::format("one operation uses a buffer twice: {} and {}",
                         describe(a->direction, a->message), describe(b->direction, b->message)));
    }
  }
}

void FlightBook::check_other_flights(const Flight& flight) const {
  for (const Buffer& buffer : flight.buffers) {
    const bool writes = buffer.direction == Direction::kReceive;
    if (const Buffer* other = find(buffer.message.data, writes)) {
      refuse(fmt::format("{} is posted while its buffer is in flight as {}",
                         describe(buffer.direction, buffer.message),
                         describe(other->direction, other->message)));
    }
  }
}

// The buffer in flight that forbids reading, or writing, this tensor.
const FlightBook::Buffer* FlightBook::find(const Tensor& tensor, bool writes) const {
  for (const auto& [id, flight] : flights_) {
    for (const Buffer& buffer : flight.buffers) {
      if (!writes && buffer.direction == Direction::kSend) continue;
      if (overlaps(tensor, buffer.message.data)) return &buffer;
    }
  }
  return nullptr;
}

void FlightBook::abandon(Id id) {
  abandoned_.push_back(flights_.at(id).what);
  flights_.erase(id);
}

void FlightBook::check_kernel(const char* kernel, std::span<const Tensor> reads,
                              std::span<const Tensor> writes) const {
  for (const bool writing : {false, true}) {
    for (const Tensor& tensor : writing ? writes : reads) {
      const Buffer* buffer = find(tensor, writing);
      if (buffer == nullptr) continue;
      refuse(fmt::format("kernel {} {} tensor {} while it is in flight as {}", kernel,
                         writing ? "writes" : "reads", tensor.name(),
                         describe(buffer->direction, buffer->message)));
    }
  }
}

std::string FlightBook::unfinished() const {
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : ", ") + what; };
  for (const std::string& what : abandoned_) add(what);
  for (const auto& [id, flight] : flights_) add(flight.what);
  return text;
}

}  // namespace sp
