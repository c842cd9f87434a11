// What a rank sends: counted for real runs and predicted by cost(), with the same functions.
//
// Point-to-point  A message counts once, at its sender, with its payload; an empty one counts as a
//                 message of 0 bytes.
// Collectives     Count the bandwidth-optimal direct form. All-gather, reduce-scatter and
//                 all-to-all send P-1 messages; all-reduce is a reduce-scatter of P nearly equal
//                 parts followed by an all-gather; a broadcast root sends P-1 times.
// One rank        Sends nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace sp {

struct Traffic {
  std::int64_t bytes_sent = 0;
  std::int64_t messages_sent = 0;

  Traffic& operator+=(const Traffic& more) {
    bytes_sent += more.bytes_sent;
    messages_sent += more.messages_sent;
    return *this;
  }
  bool operator==(const Traffic&) const = default;
};

Traffic all_gather_traffic(std::int64_t my_bytes, int ranks);
// total_bytes over all parts, my_bytes of the part that this rank keeps
Traffic scatter_traffic(std::int64_t total_bytes, std::int64_t my_bytes, int ranks);
Traffic all_reduce_traffic(std::int64_t elements, std::int64_t element_bytes, int rank, int ranks);

}  // namespace sp
