// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/dense_model.hpp"

#include <vector>

#include "harness/papers/counted.hpp"

namespace sp {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Tensor room(Machine& machine, std::int64_t elements) {
  return machine.memory.allocate(DType::kF32, {elements, 1, 1, 1}, "activations");
}

SimulationOptions unlimited() {
  SimulationOptions options;
  options.unlimited_memory = true;
  return options;
}

}  // namespace

DenseModel DenseModel::of(const Config& config) {
  DenseModel model;
  model.name = config.text("name");
  model.layers = config.integer("layers", 1, 1024);
  model.heads = config.integer("heads", 1, 1024);
  model.key_heads = config.integer("key_heads", 1, model.heads, model.heads);
  model.head_size = config.integer("head_size", 1, 1024);
  model.feed_forward = config.integer("feed_forward", 1, 1 << 20);
  return model;
}

std::int64_t DenseModel::weights() const {
  const std::int64_t d = hidden();
  return layers * (2 * d * d + 2 * d * key_heads * head_size + 3 * d * feed_forward);
}

Problem DenseModel::attention(std::int64_t tokens) const {
  return softmax_problem({1, tokens, heads, key_heads, head_size, head_size}, DType::kBF16, true);
}

Problem DenseModel::attention_of_heads(std::int64_t tokens, int ranks) const {
  const std::int64_t keys = ceil_div(key_heads, ranks);
  const std::int64_t queries = ceil_div(ceil_div(heads, ranks), keys) * keys;
  return softmax_problem({1, tokens, queries, keys, head_size, head_size}, DType::kBF16, true);
}

double all_reduce_seconds(const Platform& platform, std::int64_t bytes, int ranks) {
  const auto body = [&](Machine& machine) {
    machine.comm.all_reduce(room(machine, bytes / 4), {"activations", 0}).wait();
  };
  return run_phantom(platform, ranks, body, unlimited()).time_s;
}

double gather_scatter_seconds(const Platform& platform, std::int64_t bytes, int ranks) {
  const auto body = [&](Machine& machine) {
    const std::int64_t part = bytes / 4 / ranks;
    std::vector<Tensor> all;
    for (int rank = 0; rank < ranks; ++rank) all.push_back(room(machine, part));
    const Tensor mine = room(machine, part);
    machine.comm.all_gather(mine, all, {"activations", 0}).wait();
    machine.comm.reduce_scatter(all, mine, {"activations", 1}).wait();
  };
  return run_phantom(platform, ranks, body, unlimited()).time_s;
}

}  // namespace sp
