// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::kUsage, what); }

void expect_range(const char* name, std::int64_t value, std::int64_t least) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (value < least || value >= kMost)
    refuse(fmt::format("{} = {} is impossible; allowed: {}..{}", name, value, least, kMost - 1));
}

class List {
 public:
  explicit List(const ModelConfig& config) : config_(config) {}

  void matrix(const std::string& name, std::int64_t to, std::int64_t from, double deviation) {
    list_.push_back({name, {to, from}, true, deviation, 0});
  }
  void projection(const std::string& name, std::int64_t to, std::int64_t from, double deviation) {
    matrix(name, to, from, deviation);
    if (config_.biases) vector(name + ".bias", to, 0);
  }
  void table(const std::string& name, std::int64_t rows) {
    list_.push_back({name, {rows, config_.width}, false, kDeviation, 0});
  }
  void vector(const std::string& name, std::int64_t size, double start) {
    list_.push_back({name, {size}, false, 0, start});
  }
  void norm(const std::string& name) {
    vector(name + ".gain", config_.width, 1);
    if (config_.norm == Norm::kLayer) vector(name + ".bias", config_.width, 0);
  }

  void softmax_attention(const std::string& name) {
    const auto& c = config_;
    projection(name + ".query", c.heads * c.head_size, c.width, kDeviation);
    projection(name + ".key", c.kv_heads * c.head_size, c.width, kDeviation);
    projection(name + ".value", c.kv_heads * c.head_size, c.width, kDeviation);
    projection(name + ".output", c.width, c.heads * c.head_size, into_stream());
  }
  void linear_attention(const std::string& name) {
    const auto& c = config_;
    constexpr std::int64_t kGateRank = 16;
    matrix(name + ".query", c.heads * c.key_size, c.width, kDeviation);
    matrix(name + ".key", c.heads * c.key_size, c.width, kDeviation);
    matrix(name + ".value", c.heads * c.head_size, c.width, kDeviation);
    if (c.module == Module::kGla) {
      matrix(name + ".decay_down", kGateRank, c.width, kDeviation);
      matrix(name + ".decay_up", c.heads * c.key_size, kGateRank, kDeviation);
      vector(name + ".decay_up.bias", c.heads * c.key_size, 0);
    }
    if (c.module == Module::kRebased) {
      vector(name + ".gamma", c.key_size, 1);
      vector(name + ".beta", c.key_size, 0);
    }
    if (!is_normalised(c.module)) vector(name + ".head_gain", c.head_size, 1);
    matrix(name + ".gate", c.heads * c.head_size, c.width, kDeviation);
    matrix(name + ".output", c.width, c.heads * c.head_size, into_stream());
  }
  void feed_forward(const std::string& name) {
    const auto& c = config_;
    if (c.feed_forward == FeedForward::kSwiGlu)
      projection(name + ".gate", c.feed_forward_width, c.width, kDeviation);
    projection(name + ".up", c.feed_forward_width, c.width, kDeviation);
    projection(name + ".down", c.width, c.feed_forward_width, into_stream());
  }

  std::vector<ParameterInfo> take() { return std::move(list_); }

  static constexpr double kDeviation = 0.02;

 private:
  // So that the stream's variance does not grow with the layers (GPT-2, section 2.3).
  double into_stream() const {
    return kDeviation / std::sqrt(2.0 * static_cast<double>(config_.layers.size()));
  }

  const ModelConfig& config_;
  std::vector<ParameterInfo> list_;
};

}  // namespace

void validate(const ModelConfig& c) {
  expect_range("vocabulary", c.vocabulary, 2);
  expect_range("vision_vocabulary", c.vision_vocabulary, 0);
  expect_range("token_types", c.token_types, 0);
  expect_range("width", c.width, 1);
  expect_range("heads", c.heads, 1);
  expect_range("kv_heads", c.kv_heads, 1);
  expect_range("head_size", c.head_size, 1);
  expect_range("key_size", c.key_size, 1);
  expect_range("feed_forward_width", c.feed_forward_width, 1);
  expect_range("window", c.window, 0);
  if (c.heads % c.kv_heads != 0)
    refuse(fmt::format("kv_heads = {} does not divide heads = {}", c.kv_heads, c.heads));
  if (c.layers.empty() || c.layers.find_first_not_of("LN") != std::string::npos)
    refuse(
        fmt::format("layers = '{}' is impossible; allowed: one letter per layer, L linear, N "
                    "softmax",
                    c.layers));
  if (!(c.norm_epsilon > 0))
    refuse(fmt::format("norm_epsilon = {} is impossible; allowed: positive", c.norm_epsilon));
  if (c.positions == Positions::kRotary) {
    if (c.head_size % 2 != 0)
      refuse(fmt::format("head_size = {} is odd; rotary positions turn pairs", c.head_size));
    if (!(c.rotary_base > 1))
      refuse(fmt::format("rotary_base = {} is impossible; allowed: above 1", c.rotary_base));
  }
  if (c.positions == Positions::kLearned) expect_range("longest", c.longest, 1);
}

std::int64_t ParameterInfo::size() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<ParameterInfo> parameters_of(const ModelConfig& c) {
  List list(c);
  list.table("embedding", c.vocabulary);
  if (c.vision_vocabulary > 0) list.table("vision_embedding", c.vision_vocabulary);
  if (c.positions == Positions::kLearned) list.table("positions", c.longest);
  if (c.token_types > 0) list.table("types", c.token_types);
  for (std::size_t l = 0; l < c.layers.size(); ++l) {
    const std::string name = fmt::format("layers.{}", l);
    list.norm(name + ".attention_norm");
    c.layers[l] == 'L' ? list.linear_attention(name + ".attention")
                       : list.softmax_attention(name + ".attention");
    list.norm(name + ".feed_forward_norm");
    list.feed_forward(name + ".feed_forward");
  }
  list.norm("norm");
  if (!c.tied_embedding) list.matrix("head", c.vocabulary, c.width, List::kDeviation);
  if (c.vision_vocabulary > 0)
    list.matrix("vision_head", c.vision_vocabulary, c.width, List::kDeviation);
  if (c.sentence_head) {
    list.projection("pool", c.width, c.width, List::kDeviation);
    list.projection("sentence", 2, c.width, List::kDeviation);
  }
  return list.take();
}

namespace {

void expect_size(const char* name, std::size_t size, std::int64_t wanted) {
  if (static_cast<std::int64_t>(size) != wanted)
    refuse(fmt::format("the batch has {} {}, its shape says {}", size, name, wanted));
}

// Every id below the size of its vocabulary, that of vision codes where `vision` says so.
void expect_ids(const char* name, const std::vector<std::int32_t>& ids, std::int64_t vocabulary,
                const std::vector<std::uint8_t>& vision, std::int64_t vision_vocabulary) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::int64_t allowed = !vision.empty() && vision[i] ? vision_vocabulary : vocabulary;
    if (ids[i] < 0 || ids[i] >= allowed)
      refuse(fmt::format("{}[{}] = {}; allowed: 0..{}", name, i, ids[i], allowed - 1));
  }
}

void expect_weights(const char* name, const std::vector<double>& weights) {
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!std::isfinite(weights[i]) || weights[i] < 0)
      refuse(fmt::format("{}[{}] = {}; allowed: finite, 0 or more", name, i, weights[i]));
  }
}

}  // namespace

void validate(const ModelConfig& c, const Batch& batch) {
  expect_range("B", batch.B, 0);
  expect_range("N", batch.N, 0);
  const std::int64_t size = batch.B * batch.N;
  expect_size("tokens", batch.tokens.size(), size);
  expect_size("targets", batch.targets.size(), size);
  expect_size("weights", batch.weights.size(), size);
  if (!batch.segment_ids.empty()) expect_size("segment_ids", batch.segment_ids.size(), size);
  expect_size("types", batch.types.size(), c.token_types > 0 ? size : 0);
  expect_size("is_vision", batch.is_vision.size(), c.vision_vocabulary > 0 ? size : 0);
  expect_size("target_is_vision", batch.target_is_vision.size(),
              c.vision_vocabulary > 0 ? size : 0);
  expect_size("sentence_targets", batch.sentence_targets.size(), c.sentence_head ? batch.B : 0);
  expect_size("sentence_weights", batch.sentence_weights.size(), c.sentence_head ? batch.B : 0);
  expect_ids("tokens", batch.tokens, c.vocabulary, batch.is_vision, c.vision_vocabulary);
  expect_ids("targets", batch.targets, c.vocabulary, batch.target_is_vision, c.vision_vocabulary);
  expect_ids("types", batch.types, c.token_types, {}, 0);
  expect_ids("sentence_targets", batch.sentence_targets, 2, {}, 0);
  expect_weights("weights", batch.weights);
  expect_weights("sentence_weights", batch.sentence_weights);
  if (c.positions == Positions::kLearned && batch.N > c.longest)
    refuse(fmt::format("N = {} is longer than the {} learned positions", batch.N, c.longest));
}

void validate(const OptimizerConfig& c) {
  expect_range("warm_up", c.warm_up, 0);
  expect_range("steps", c.steps, 1);
  const auto expect = [](const char* name, double value, bool good, const char* allowed) {
    if (!good) refuse(fmt::format("{} = {} is impossible; allowed: {}", name, value, allowed));
  };
  expect("rate", c.rate, c.rate > 0, "positive");
  expect("least_rate", c.least_rate, 0 <= c.least_rate && c.least_rate <= c.rate, "0 to the rate");
  expect("beta1", c.beta1, 0 <= c.beta1 && c.beta1 < 1, "0 to below 1");
  expect("beta2", c.beta2, 0 <= c.beta2 && c.beta2 < 1, "0 to below 1");
  expect("epsilon", c.epsilon, c.epsilon > 0, "positive");
  expect("weight_decay", c.weight_decay, c.weight_decay >= 0, "0 or more");
  expect("clip", c.clip, c.clip >= 0, "0 or more");
}

}  // namespace sp
