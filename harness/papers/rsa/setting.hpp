// One model on so many ranks, as the formulas of RSA's section 3.2 name its sizes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/config/config.hpp"
#include "harness/papers/formula.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

struct RsaSetting {
  std::string model;
  std::int64_t batch, tokens, hidden, heads, projected;
  int ranks;
  std::string label() const;
  Symbols symbols() const;
  // One layer's attention; `projected_keys` with Linformer, 0 without it.
  Problem attention(std::int64_t length, std::int64_t projected_keys) const;
};

// One for each [[model]] of the config; its ranks are still to be set.
std::vector<RsaSetting> rsa_settings(const Config& config, std::int64_t projected);

}  // namespace sp
