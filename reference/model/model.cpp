// SPDX-License-Identifier: Apache-2.0
#include "reference/model/model.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "reference/model/attention_operations.hpp"
#include "reference/model/operations.hpp"

namespace sp::reference {
namespace {

constexpr double kGateTemperature = 16;  // of GLA: log decay = log sigmoid / 16

class Model {
 public:
  Model(const ModelConfig& config, const ParameterValues& parameters, const Batch& batch)
      : config_(config), batch_(batch), infos_(parameters_of(config)) {
    SP_CHECK(parameters.size() == infos_.size(), "values for every parameter");
    for (std::size_t p = 0; p < infos_.size(); ++p) {
      const auto& shape = infos_[p].shape;
      const Variable variable = shape.size() == 1 ? make(1, shape[0]) : make(shape[0], shape[1]);
      SP_CHECK(parameters[p].size() == variable->size(), infos_[p].name + " in its shape");
      variable->value = parameters[p];
      variables_[infos_[p].name] = variable;
    }
    for (Index b = 0; b < batch.B; ++b)
      for (Index n = 0; n < batch.N; ++n) positions_.push_back(n);
  }

  ModelResult run() {
    Variable x = embedding();
    for (std::size_t l = 0; l < config_.layers.size(); ++l) {
      const std::string name = fmt::format("layers.{}", l);
      const Variable normed = norm(x, name + ".attention_norm");
      x = add(tape_, x,
              config_.layers[l] == 'L' ? linear(normed, name + ".attention")
                                       : softmax(normed, name + ".attention"));
      x = add(tape_, x, feed_forward(norm(x, name + ".feed_forward_norm"), name + ".feed_forward"));
    }
    const std::vector<Variable> losses = losses_of(norm(x, "norm"));
    ModelResult result;
    for (const Variable& loss : losses) {
      result.loss += loss->value[0];
      loss->gradient[0] = 1;
    }
    tape_.run_back();
    for (const ParameterInfo& info : infos_)
      result.gradients.push_back(variables_.at(info.name)->gradient);
    return result;
  }

 private:
  Variable at(const std::string& name) const {
    const auto found = variables_.find(name);
    return found == variables_.end() ? nullptr : found->second;
  }
  Variable projection(const Variable& x, const std::string& name) {
    return project(tape_, x, variables_.at(name), at(name + ".bias"));
  }
  Variable norm(const Variable& x, const std::string& name) {
    const Variable& gain = variables_.at(name + ".gain");
    return config_.norm == Norm::kRms
               ? rms_norm(tape_, x, gain, config_.norm_epsilon)
               : layer_norm(tape_, x, gain, variables_.at(name + ".bias"), config_.norm_epsilon);
  }

  // Ids of one vocabulary; -1 where the token is of the other.
  static std::vector<std::int32_t> ids_of(const std::vector<std::int32_t>& ids,
                                          const std::vector<std::uint8_t>& vision, bool wanted) {
    std::vector<std::int32_t> result = ids;
    for (std::size_t i = 0; i < ids.size(); ++i)
      if ((!vision.empty() && vision[i] != 0) != wanted) result[i] = -1;
    return result;
  }

  Variable embedding() {
    const auto& c = config_;
    Variable x = look_up(tape_, at("embedding"), ids_of(batch_.tokens, batch_.is_vision, false));
    if (c.vision_vocabulary > 0)
      x = add(
          tape_, x,
          look_up(tape_, at("vision_embedding"), ids_of(batch_.tokens, batch_.is_vision, true)));
    if (c.positions == Positions::kLearned) {
      const std::vector<std::int32_t> places(positions_.begin(), positions_.end());
      x = add(tape_, x, look_up(tape_, at("positions"), places));
    }
    if (c.token_types > 0) x = add(tape_, x, look_up(tape_, at("types"), batch_.types));
    return x;
  }

  Problem problem(Index kv_heads, Index key_size) const {
    Problem p;
    p.shape = {batch_.B, batch_.N, config_.heads, kv_heads, key_size, config_.head_size};
    p.mask.causal = config_.causal;
    p.mask.segment_ids = batch_.segment_ids;
    p.dtype = DType::kF64;
    return p;
  }

  Variable softmax(const Variable& x, const std::string& name) {
    const auto& c = config_;
    Problem p = problem(c.kv_heads, c.head_size);
    p.mask.window = c.window;
    p.scale = default_scale(p.shape);
    Variable q = projection(x, name + ".query"), k = projection(x, name + ".key");
    if (c.positions == Positions::kRotary) {
      q = rotate(tape_, q, c.head_size, c.rotary_base, positions_);
      k = rotate(tape_, k, c.head_size, c.rotary_base, positions_);
    }
    const Variable v = projection(x, name + ".value");
    return projection(attend(tape_, p, q, k, v), name + ".output");
  }

  Variable linear(const Variable& x, const std::string& name) {
    const auto& c = config_;
    Problem p = problem(c.heads, c.key_size);
    p.module = c.module;
    p.epsilon = default_epsilon(c.module);
    const bool scales = !is_normalised(c.module) && c.module != Module::kLightning;
    p.scale = scales ? default_scale(p.shape) : 1;
    Variable q = projection(x, name + ".query"), k = projection(x, name + ".key");
    if (c.key_activation && !is_normalised(c.module)) q = silu(tape_, q), k = silu(tape_, k);
    LinearParameters parameters{nullptr, at(name + ".gamma"), at(name + ".beta")};
    if (decay_of(c.module) == Decay::kPerHead) {
      parameters.log_decay = make(1, c.heads);  // constants
      parameters.log_decay->value = default_log_decay(c.module, c.heads);
    }
    if (c.module == Module::kGla)
      parameters.log_decay =
          log_sigmoid(tape_, projection(projection(x, name + ".decay_down"), name + ".decay_up"),
                      1 / kGateTemperature);
    const Variable v = projection(x, name + ".value");
    Variable out = attend(tape_, p, q, k, v, parameters);
    if (const Variable gain = at(name + ".head_gain"))
      out = rms_norm(tape_, out, gain, config_.norm_epsilon);
    out = multiply(tape_, out, silu(tape_, projection(x, name + ".gate")));
    return projection(out, name + ".output");
  }

  Variable feed_forward(const Variable& x, const std::string& name) {
    const Variable up = projection(x, name + ".up");
    const Variable wide = config_.feed_forward == FeedForward::kSwiGlu
                              ? multiply(tape_, silu(tape_, projection(x, name + ".gate")), up)
                              : gelu(tape_, up);
    return projection(wide, name + ".down");
  }

  // Of the tokens whose target belongs to one vocabulary.
  Variable token_loss(const Variable& x, const std::string& head, bool vision) {
    std::vector<double> weights = batch_.weights;
    std::vector<std::int32_t> targets = ids_of(batch_.targets, batch_.target_is_vision, vision);
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (targets[i] < 0) weights[i] = 0, targets[i] = 0;
    return cross_entropy(tape_, project(tape_, x, at(head), nullptr), targets, weights);
  }

  std::vector<Variable> losses_of(const Variable& x) {
    std::vector<Variable> losses{
        token_loss(x, config_.tied_embedding ? "embedding" : "head", false)};
    if (config_.vision_vocabulary > 0) losses.push_back(token_loss(x, "vision_head", true));
    if (config_.sentence_head && batch_.N > 0) {
      std::vector<Index> first;
      for (Index b = 0; b < batch_.B; ++b) first.push_back(b * batch_.N);
      const Variable pooled = tanh(tape_, projection(pick_rows(tape_, x, first), "pool"));
      losses.push_back(cross_entropy(tape_, projection(pooled, "sentence"), batch_.sentence_targets,
                                     batch_.sentence_weights));
    }
    return losses;
  }

  const ModelConfig& config_;
  const Batch& batch_;
  std::vector<ParameterInfo> infos_;
  std::map<std::string, Variable> variables_;
  std::vector<Index> positions_;  // of every row of the batch
  Tape tape_;
};

}  // namespace

ModelResult evaluate_model(const ModelConfig& config, const ParameterValues& parameters,
                           const Batch& batch) {
  validate(config);
  validate(config, batch);
  return Model(config, parameters, batch).run();
}

}  // namespace sp::reference
