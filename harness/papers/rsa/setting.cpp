// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/rsa/setting.hpp"

#include <fmt/format.h>

#include "harness/papers/counted.hpp"

namespace sp {

std::string RsaSetting::label() const { return fmt::format("{}, {} ranks", model, ranks); }

Symbols RsaSetting::symbols() const {
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  return {{"B", number(batch)},    {"L", number(tokens)},         {"H", number(hidden)},
          {"Z", number(heads)},    {"A", number(hidden / heads)}, {"N", number(ranks)},
          {"K", number(projected)}};
}

Problem RsaSetting::attention(std::int64_t length, std::int64_t projected_keys) const {
  const std::int64_t head = hidden / heads;
  Problem problem = softmax_problem({batch, length, heads, heads, head, head}, DType::kF32, false);
  problem.projected = projected_keys;
  return problem;
}

std::vector<RsaSetting> rsa_settings(const Config& config, std::int64_t projected) {
  std::vector<RsaSetting> settings;
  for (const Config& model : config.tables("model")) {
    settings.push_back({model.text("name"), model.integer("batch", 1, 1 << 20),
                        model.size("tokens", 1), model.integer("hidden", 1, 1 << 20),
                        model.integer("heads", 1, 1 << 10), projected, 0});
  }
  return settings;
}

}  // namespace sp
