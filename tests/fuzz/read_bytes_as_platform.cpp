// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/read_bytes_as_platform.hpp"

#include <algorithm>
#include <cmath>

#include "harness/cluster/platform.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

namespace sp::fuzz {

std::string read_bytes_as_platform(const std::string& path, std::span<const std::byte> bytes) {
  test::write_bytes(path, bytes);
  Platform platform;
  try {
    platform = load_platform(path);
  } catch (const Error& error) {
    const std::string what = error.what();
    SP_CHECK(error.kind() == ErrorKind::kUsage, "not a usage error: " + what);
    SP_CHECK(what.starts_with(path + ":"), "the file is not named: " + what);
    SP_CHECK(what.find_first_of("\n\r") == std::string::npos, "more than a line: " + what);
    return what;
  }
  for (const Quantity& quantity : platform.quantities) {
    SP_CHECK(std::isfinite(quantity.value) && quantity.value >= 0, quantity.key + " is no number");
    SP_CHECK(!quantity.source.empty(), quantity.key + " has no source");
  }
  for (const WireMap::Link& link : wire(platform, std::min(platform.devices(), 16)).links) {
    SP_CHECK(link.bandwidth > 0, link.name + " carries nothing");
  }
  return "";
}

}  // namespace sp::fuzz
