// Envelope: what a message says about itself, so that a wrong pairing is an error that names both
// sides.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "optimized/comm/communicator.hpp"

namespace sp {

struct Envelope {
  Pattern pattern = Pattern::kExchange;
  DType dtype = DType::kF32;
  std::int64_t bytes = 0;
  Label label;
};

Envelope envelope_of(Pattern pattern, const Message& message);

std::string_view name_of(Pattern pattern);

// Labels are compared as text: equal literals need not share an address across processes.
bool matches(const Envelope& sent, const Envelope& expected);

std::string describe(const Envelope& envelope);  // k step 3 (8192 bytes)
// What a rank waits for: "for k step 3 (8192 bytes) from rank 2", or "until rank 2 receives ...".
std::string describe_wait(bool is_send, int peer, const Envelope& envelope);
std::string describe_mismatch(int sender, const Envelope& sent, int receiver,
                              const Envelope& expected);

}  // namespace sp
