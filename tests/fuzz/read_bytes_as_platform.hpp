// The property that fuzzing and a unit test check: any bytes are a platform or a clean error.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace sp::fuzz {

// Writes the bytes to `path`, loads them as a platform and wires it. Returns "" for a valid platform
// and otherwise the message; throws when the error is not a one-line Error(kUsage) that names the
// file, or when a platform was accepted that holds no sensible machine.
std::string read_bytes_as_platform(const std::string& path, std::span<const std::byte> bytes);

}  // namespace sp::fuzz
