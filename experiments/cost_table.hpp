// What every algorithm sends and holds on one example, as tables of optimized/README.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace sp {

// Markdown; of softmax attention, or of linear attention and stacks.
std::string cost_table(bool linear);

}  // namespace sp
