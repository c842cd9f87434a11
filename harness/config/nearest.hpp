// Suggestions for misspelt words.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace sp {

// The candidate with the smallest edit distance; empty if none is near, or none within `most`.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);
std::string nearest(const std::string& word, const std::vector<std::string>& candidates,
                    std::size_t most);

}  // namespace sp
