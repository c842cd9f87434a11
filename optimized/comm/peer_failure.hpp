// PeerFailure: what a rank throws because another one failed. Why is that one's to say.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/error.hpp"

namespace sp {

struct PeerFailure : Error {
  explicit PeerFailure(const std::string& what) : Error(ErrorKind::kEnvironment, what) {}
};

}  // namespace sp
