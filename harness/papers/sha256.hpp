// SHA-256 (FIPS 180-4), as what a stored result says of the text it came from.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace sp {

std::string sha256(std::string_view bytes);  // 64 hexadecimal digits

}  // namespace sp
