// The property that fuzzing and the mutation tests check: any bytes are a problem or a clean error.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace sp::fuzz {

// Writes the bytes to `path` and reads them as a problem file. Returns "" for a valid problem and
// otherwise the message; throws when the error is not a one-line Error(kUsage) that names the file,
// or when a problem that was accepted is not the same after it is written and read again.
std::string read_bytes_as_problem(const std::string& path, std::span<const std::byte> bytes);

}  // namespace sp::fuzz
