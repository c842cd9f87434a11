// Small models of every kind, with batches that have something of everything.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <random>
#include <string>
#include <vector>

#include "reference/model/model.hpp"

namespace sp::test {

struct ModelCase {
  std::string name;
  ModelConfig config;
  Batch batch;
};

inline Batch random_batch(const ModelConfig& c, std::int64_t B, std::int64_t N, unsigned seed,
                          bool packed = false) {
  std::mt19937 random(seed);
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(n));
  };
  Batch batch{.B = B, .N = N};
  for (std::int64_t i = 0; i < B * N; ++i) {
    const bool vision = c.vision_vocabulary > 0 && below(2) == 0;
    const bool target_is_vision = c.vision_vocabulary > 0 && below(2) == 0;
    batch.tokens.push_back(below(vision ? c.vision_vocabulary : c.vocabulary));
    batch.targets.push_back(below(target_is_vision ? c.vision_vocabulary : c.vocabulary));
    batch.weights.push_back(below(4) == 0 ? 0 : (1 + below(16)) / 64.0);
    if (c.vision_vocabulary > 0) {
      batch.is_vision.push_back(vision);
      batch.target_is_vision.push_back(target_is_vision);
    }
    if (c.token_types > 0) batch.types.push_back(below(c.token_types));
    if (packed) batch.segment_ids.push_back(static_cast<std::int32_t>(i % N * 3 / N));
  }
  for (std::int64_t b = 0; c.sentence_head && b < B; ++b) {
    batch.sentence_targets.push_back(below(2));
    batch.sentence_weights.push_back(0.25 * static_cast<double>(b));
  }
  return batch;
}

// Larger than at a real start, so that nothing vanishes.
inline reference::ParameterValues parameters_for(const ModelCase& c) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, 0.4);
  reference::ParameterValues values;
  for (const ParameterInfo& info : parameters_of(c.config)) {
    values.emplace_back();
    for (std::int64_t i = 0; i < info.size(); ++i)
      values.back().push_back(info.start + normal(random));
  }
  return values;
}

inline std::vector<ModelCase> model_cases() {
  ModelConfig small{.vocabulary = 11,
                    .width = 6,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_size = 4,
                    .layers = "NN",
                    .key_size = 3,
                    .feed_forward_width = 7};
  std::vector<ModelCase> cases;
  const auto add_case = [&](const std::string& name, const ModelConfig& config,
                            bool packed = false) {
    cases.push_back({name, config, random_batch(config, 2, 5, 3, packed)});
  };
  add_case("llama", small);
  ModelConfig windowed = small;
  windowed.window = 3;
  add_case("window_and_documents", windowed, true);
  for (const Module module : kModules) {
    ModelConfig hybrid = small;
    hybrid.layers = "LN";
    hybrid.module = module;
    add_case(fmt::format("hybrid_{}", name_of(module)), hybrid);
    add_case(fmt::format("hybrid_{}_documents", name_of(module)), hybrid, true);
  }
  ModelConfig plain_keys = small;
  plain_keys.layers = "L";
  plain_keys.key_activation = false;
  add_case("keys_without_activation", plain_keys);
  ModelConfig roberta = plain_keys;
  roberta.causal = false;
  add_case("bidirectional_linear", roberta);
  ModelConfig bert = small;
  bert.token_types = 2;
  bert.sentence_head = true;
  bert.feed_forward = FeedForward::kGelu;
  bert.norm = Norm::kLayer;
  bert.biases = true;
  bert.tied_embedding = true;
  bert.positions = Positions::kLearned;
  bert.longest = 9;
  bert.causal = false;
  add_case("bert", bert);
  ModelConfig lwm = small;
  lwm.vision_vocabulary = 5;
  lwm.rotary_base = 1e6;
  add_case("lwm", lwm, true);
  ModelConfig bare = small;
  bare.positions = Positions::kNone;
  bare.tied_embedding = true;
  add_case("tied_without_positions", bare);
  return cases;
}

}  // namespace sp::test
