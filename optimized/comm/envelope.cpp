// The comparison of envelopes and their words in messages.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/envelope.hpp"

#include <fmt/format.h>

#include <cstring>

namespace sp {
namespace {

std::string describe_fully(const Envelope& envelope) {
  return fmt::format("{} step {} ({} bytes of {}, {})", envelope.label.tensor, envelope.label.step,
                     envelope.bytes, name_of(envelope.dtype), name_of(envelope.pattern));
}

}  // namespace

Envelope envelope_of(Pattern pattern, const Message& message) {
  return {pattern, message.data.dtype(), message.data.bytes(), message.label};
}

std::string_view name_of(Pattern pattern) {
  switch (pattern) {
    case Pattern::kExchange:
      return "exchange";
    case Pattern::kAllGather:
      return "all_gather";
    case Pattern::kReduceScatter:
      return "reduce_scatter";
    case Pattern::kAllReduce:
      return "all_reduce";
    case Pattern::kAllToAll:
      return "all_to_all";
    case Pattern::kBroadcast:
      return "broadcast";
  }
  return "unknown";
}

bool matches(const Envelope& sent, const Envelope& expected) {
  return sent.pattern == expected.pattern && sent.dtype == expected.dtype &&
         sent.bytes == expected.bytes && sent.label.step == expected.label.step &&
         std::strcmp(sent.label.tensor, expected.label.tensor) == 0;
}

std::string describe(const Envelope& envelope) {
  return fmt::format("{} step {} ({} bytes)", envelope.label.tensor, envelope.label.step,
                     envelope.bytes);
}

std::string describe_wait(bool is_send, int peer, const Envelope& envelope) {
  return is_send ? fmt::format("until rank {} receives {}", peer, describe(envelope))
                 : fmt::format("for {} from rank {}", describe(envelope), peer);
}

std::string describe_mismatch(int sender, const Envelope& sent, int receiver,
                              const Envelope& expected) {
  return fmt::format("messages do not match: rank {} sent {}, rank {} expected {}", sender,
                     describe_fully(sent), receiver, describe_fully(expected));
}

}  // namespace sp
