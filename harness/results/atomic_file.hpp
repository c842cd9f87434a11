// A file appears complete under its name, or not at all.
//
// The bytes go to a temporary name in the same directory, reach the disk, and are renamed; when
// anything fails the temporary is removed and what was there before is untouched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace sp {

// Throws Error(kEnvironment) that names the file and the reason, such as a full disk. An existing
// regular file is replaced; anything else that exists under the name is refused.
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);

// Asked before long work: whether a file could be written there now. Throws the same errors, and
// leaves nothing behind.
void require_writable(const std::string& path);

}  // namespace sp
