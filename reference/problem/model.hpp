// A whole model and what one training step of it is given: shared by the reference and the model on a
// mesh.
//
// The model is a decoder or encoder of pre-normalised blocks (reference/model/README.md): embedding,
// L blocks of attention and feed-forward, a last norm, a head over the vocabulary. Letters: B rows of N
// tokens, M width of the residual stream, H query heads, G key/value heads, D head size, L layers, V
// vocabulary.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "reference/problem/problem.hpp"

namespace sp {

enum class Norm : std::uint8_t { kRms, kLayer };
enum class FeedForward : std::uint8_t { kSwiGlu, kGelu };
enum class Positions : std::uint8_t {
  kNone,
  kRotary,   // in softmax layers, on q and k
  kLearned,  // added to the embedding
};

struct ModelConfig {
  std::int64_t vocabulary = 256;
  std::int64_t vision_vocabulary = 0;  // codes with an embedding and a head of their own; 0: none
  std::int64_t token_types = 0;  // BERT: types with an embedding, added to the token's; 0: none
  bool sentence_head = false;    // BERT: two classes from the first token of every row
  std::int64_t width = 64;       // M
  std::int64_t heads = 4, kv_heads = 4, head_size = 16;  // H, G, D of softmax layers
  std::string layers = "NN";       // one letter per layer: L linear, N softmax
  Module module = Module::kBasic;  // of the L layers, which have H heads of q, k and v
  std::int64_t key_size = 16;      // of their queries and keys; values have the head size
  bool key_activation = true;      // SiLU on their queries and keys; not of Based and Rebased
  FeedForward feed_forward = FeedForward::kSwiGlu;
  std::int64_t feed_forward_width = 128;
  Norm norm = Norm::kRms;
  double norm_epsilon = 1e-5;
  bool biases = false;          // of all projections but those of linear attention
  bool tied_embedding = false;  // the head is the embedding
  Positions positions = Positions::kRotary;
  double rotary_base = 10000;
  std::int64_t longest = 0;  // of learned positions
  bool causal = true;
  std::int64_t window = 0;  // of softmax layers; 0: none
  bool operator==(const ModelConfig&) const = default;
};
// Throws Error(kUsage) with one sentence that names the offending value and what is allowed.
void validate(const ModelConfig& config);

// What trains, in the order in which everything of the project lists it.
struct ParameterInfo {
  std::string name;                 // "layers.0.attention.query"
  std::vector<std::int64_t> shape;  // of a projection [to, from]
  bool decays = true;               // by weight decay: matrices do, norms, biases and tables not
  double deviation = 0.02;          // of its normal start; 0: all are `start`
  double start = 0;

  std::int64_t size() const;  // in elements
};
std::vector<ParameterInfo> parameters_of(const ModelConfig& config);

// One step's tokens. Rows are whole sequences, or packed documents.
struct Batch {
  std::int64_t B = 1, N = 0;
  std::vector<std::int32_t> tokens{};       // [B, N]
  std::vector<std::int32_t> targets{};      // [B, N]: what the head at that token is to say
  std::vector<double> weights{};            // [B, N] of the losses; 0: none
  std::vector<std::int32_t> segment_ids{};  // [B, N], equal ids see each other; empty: one document
  std::vector<std::int32_t> types{};        // [B, N] < token_types; empty if there are none
  // [B, N], 1: a code of the vision vocabulary; empty if there is none.
  std::vector<std::uint8_t> is_vision{}, target_is_vision{};
  std::vector<std::int32_t> sentence_targets{};  // [B], 0 or 1; empty without a sentence head
  std::vector<double> sentence_weights{};        // [B]
};
void validate(const ModelConfig& config, const Batch& batch);

// AdamW behind clipping by the global norm, under a warm-up to a cosine (reference/model/optimizer.hpp).
struct OptimizerConfig {
  double rate = 3e-4, least_rate = 1e-6;  // of learning
  std::int64_t warm_up = 10, steps = 100;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 1;  // 0: none
  bool operator==(const OptimizerConfig&) const = default;
};
void validate(const OptimizerConfig& config);

}  // namespace sp
