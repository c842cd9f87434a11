// libFuzzer entry: any bytes, loaded as a platform file, end in a platform or in a clean error.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <span>
#include <string>

#include "tests/fuzz/read_bytes_as_platform.hpp"
#include "tests/support/files.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const sp::test::TemporaryDirectory directory;
  static const std::string path = directory.file("platform.toml");
  sp::fuzz::read_bytes_as_platform(path, std::as_bytes(std::span(data, size)));
  return 0;
}
