// A stack of layers is its layers, one after the other.
// SPDX-License-Identifier: Apache-2.0
#include "tests/property/linear_setting.hpp"

namespace sp::test {
namespace {

constexpr double kRounding = 1e-12;  // f64
const std::vector<World> kWorlds{{1, 1}, {3, 3, 2}, {4, 2}, {7, 1}};

const Algorithm& stacks() { return *find_algorithm("lasp2h"); }

Problem stack(const std::string& layers, Module module, std::uint64_t seed,
              DType dtype = DType::kF64) {
  Draw draw(seed);
  Problem problem = problem_for({&stacks(), module}, draw.shape(40));
  problem.layers = layers;
  problem.dtype = dtype;
  if (draw.coin()) problem.mask.segment_ids = segment_runs(draw, problem.shape);
  return problem;
}

// The key/value heads of one layer of a tensor [B, N, L G, .].
std::vector<std::int64_t> heads_of(const Problem& problem, std::int64_t layer) {
  return range(layer * problem.shape.G, (layer + 1) * problem.shape.G);
}

struct Layer {
  Problem problem;
  Inputs inputs;
  const Algorithm& algorithm() const {
    return *find_algorithm(problem.module ? "lasp2" : "allgather");
  }
};

Layer layer_at(const Problem& problem, const Inputs& inputs, std::int64_t index,
               const HostTensor& queries) {
  Layer layer{layer_of(problem, index), {}};
  layer.inputs.q = queries;
  layer.inputs.k = take(inputs.k, 2, heads_of(problem, index));
  layer.inputs.v = take(inputs.v, 2, heads_of(problem, index));
  if (layer.problem.module) layer.inputs.log_decay = inputs.log_decay;
  return layer;
}

void put_heads(HostTensor& all, const HostTensor& layer, std::int64_t index) {
  const std::int64_t width = layer.extent(2) * layer.extent(3), layers = all.size() / layer.size();
  for (std::int64_t n = 0; n < layer.size(); ++n)
    all.set((n / width * layers + index) * width + n % width, layer.at(n));
}

// Runs lasp2 and allgather, each in its own layout, and gathers everything in between.
Outputs one_by_one(const Problem& problem, const Inputs& inputs, const World& world) {
  const std::int64_t L = problem.layer_count();
  std::vector<HostTensor> queries{inputs.q};
  Outputs all;
  for (std::int64_t l = 0; l < L; ++l) {
    const Layer layer = layer_at(problem, inputs, l, queries.back());
    queries.push_back(run(layer.algorithm(), layer.problem, layer.inputs, world).out);
  }
  all.out = queries.back();
  all.d_k = HostTensor(problem.dtype, inputs.k.shape());
  all.d_v = HostTensor(problem.dtype, inputs.v.shape());
  all.d_q = inputs.d_out;
  if (!inputs.log_decay.absent())
    all.d_log_decay = HostTensor(inputs.log_decay.dtype(), inputs.log_decay.shape());
  for (std::int64_t l = L - 1; l >= 0; --l) {
    Layer layer = layer_at(problem, inputs, l, queries[static_cast<std::size_t>(l)]);
    layer.inputs.d_out = all.d_q;
    const Outputs result = run(layer.algorithm(), layer.problem, layer.inputs, world);
    all.d_q = result.d_q;
    put_heads(all.d_k, result.d_k, l);
    put_heads(all.d_v, result.d_v, l);
    if (!result.d_log_decay.absent())
      all.d_log_decay = combine(1, all.d_log_decay, 1, result.d_log_decay);
  }
  return all;
}

class Stack : public EachSubject {};

TEST_P(Stack, IsItsLayersOneAfterTheOther) {
  for (const char* layers : {"L", "N", "LN", "NL", "LLN", "LLLN", "NLLNL"}) {
    for (const World& world : kWorlds) {
      for (std::uint64_t seed = 0; seed < 3; ++seed) {
        const Problem problem = stack(layers, *GetParam().module, seed);
        const Inputs inputs = inputs_for(problem, seed);
        EXPECT_LE(relative_difference(run(stacks(), problem, inputs, world),
                                      one_by_one(problem, inputs, world)),
                  kRounding)
            << "P=" << world.size << ' ' << describe(problem);
      }
    }
  }
}

TEST_P(Stack, OfOneLinearLayerIsLasp2BitForBit) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    for (const World& world : kWorlds) {
      const Problem problem = stack("L", *GetParam().module, 5, dtype);
      Problem alone = problem;
      alone.layers.clear();
      const Inputs inputs = inputs_for(problem, 5);
      EXPECT_TRUE(same_bits(run(stacks(), problem, inputs, world),
                            run(*find_algorithm("lasp2"), alone, inputs, world)))
          << "P=" << world.size << ' ' << describe(problem);
    }
  }
}

TEST_P(Stack, IsOneLayerMoreThanAShorterStackBitForBit) {
  for (const World& world : kWorlds) {
    const Problem problem = stack("LNL", *GetParam().module, 8);
    const Inputs inputs = inputs_for(problem, 8);
    const Outputs whole = run(stacks(), problem, inputs, world);
    Problem lower = problem;
    lower.layers = "LN";
    Inputs below = inputs;
    const auto heads = range(0, 2 * problem.shape.G);
    below.k = take(inputs.k, 2, heads);
    below.v = take(inputs.v, 2, heads);
    const HostTensor queries = run(stacks(), lower, below, world).out;
    const Layer top = layer_at(problem, inputs, 2, queries);
    const HostTensor out = run(top.algorithm(), top.problem, top.inputs, world).out;
    EXPECT_TRUE(same_bits(whole.out, out)) << "P=" << world.size << ' ' << describe(problem);
  }
}

bool of_stacks(const Subject& s) { return s.algorithm->family == Family::kHybrid; }
INSTANTIATE_TEST_SUITE_P(Registry, Stack, testing::ValuesIn(subjects_where(of_stacks)), subject_of);

}  // namespace
}  // namespace sp::test
