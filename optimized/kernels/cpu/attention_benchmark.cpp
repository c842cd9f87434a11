// Speed of one attention block on one core, beside three plain loops over the same data.
//
// Counters: GFLOP/s by the counting rule of kernels.hpp, and times_plain, the time of the plain
// loops (one thread, f32, timed in this run) over the time of the kernel. The plain loops run
// forward only; backward is divided by its own flops at the plain loops' rate. Both are processor
// time, so that other work on the machine disturbs them little.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/cpu_memory.hpp"

namespace sp {
namespace {

constexpr std::int64_t kTokens = 1024;
constexpr std::int64_t kHeads = 4;

struct Setting {
  DType dtype;
  std::int64_t D;
  bool causal;
};

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

std::vector<float> numbers(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

// The definition, token-major like the kernels: scores of a row, their softmax, a weighted sum.
void plain_attention(const std::vector<float>& q, const std::vector<float>& k,
                     const std::vector<float>& v, std::vector<float>& out, std::int64_t D,
                     float scale) {
  std::vector<float> p(kTokens);
  const auto at = [D](std::int64_t i, std::int64_t h) {
    return static_cast<std::size_t>((i * kHeads + h) * D);
  };
  for (std::int64_t h = 0; h < kHeads; ++h) {
    for (std::int64_t i = 0; i < kTokens; ++i) {
      const float* row = &q[at(i, h)];
      float largest = -INFINITY;
      for (std::int64_t j = 0; j < kTokens; ++j) {
        const float* key = &k[at(j, h)];
        float score = 0;
        for (std::int64_t d = 0; d < D; ++d) score += row[d] * key[d];
        p[static_cast<std::size_t>(j)] = scale * score;
        largest = std::max(largest, scale * score);
      }
      float sum = 0;
      for (float& weight : p) sum += weight = std::exp(weight - largest);
      float* result = &out[at(i, h)];
      std::fill(result, result + D, 0.0f);
      for (std::int64_t j = 0; j < kTokens; ++j) {
        const float weight = p[static_cast<std::size_t>(j)] / sum;
        const float* value = &v[at(j, h)];
        for (std::int64_t d = 0; d < D; ++d) result[d] += weight * value[d];
      }
    }
  }
}

// Flops per second of the plain loops at head size D, the median of three, measured once.
double plain_rate(std::int64_t D) {
  static std::map<std::int64_t, double> rates;
  const auto known = rates.find(D);
  if (known != rates.end()) return known->second;
  const std::int64_t count = kTokens * kHeads * D;
  const auto q = numbers(count, 1), k = numbers(count, 2), v = numbers(count, 3);
  std::vector<float> out(static_cast<std::size_t>(count));
  std::vector<double> seconds;
  for (int repetition = 0; repetition < 3; ++repetition) {
    const double start = processor_seconds();
    plain_attention(q, k, v, out, D, 1 / std::sqrt(static_cast<float>(D)));
    benchmark::DoNotOptimize(out.data());
    seconds.push_back(processor_seconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  const auto flops = attention_flops(kTokens * kTokens, 1, kHeads, D, D);
  return rates[D] = static_cast<double>(flops) / seconds[1];
}

struct Block {
  CpuMemory memory;
  CpuKernels kernels;
  Tokens tokens{{{0, 1, kTokens}}};
  MaskTerms mask;
  Tensor q, k, v, d_out, out, lse, delta;
  AttentionGradients gradients;
  AttentionBlock block() const {
    const double scale = 1 / std::sqrt(static_cast<double>(q.extent(3)));
    return {q, k, v, tokens, tokens, mask, scale};
  }

  explicit Block(const Setting& setting) : mask{{setting.causal, 0}, {}} {
    const Tensor::Extents shape{kTokens, 1, kHeads, setting.D};
    const auto filled = [&](std::uint32_t seed) {
      const Tensor wide = memory.allocate(DType::kF32, shape, "wide");
      memory.upload(wide, numbers(wide.elements(), seed).data());
      const Tensor tensor = memory.allocate(setting.dtype, shape, "operand");
      kernels.copy(tensor, wide);
      return tensor;
    };
    const auto zeros = [&](Tensor::Extents extents) {
      const Tensor tensor = memory.allocate(accumulator_of(setting.dtype), extents, "sum");
      kernels.fill(tensor, 0);
      return tensor;
    };
    q = filled(1), k = filled(2), v = filled(3), d_out = filled(4);
    out = zeros(shape), lse = zeros({kTokens, 1, kHeads, 1}), delta = zeros(lse.shape());
    gradients = {zeros(shape), zeros(shape), zeros(shape)};
    kernels.attention(block(), {out, lse});
    kernels.attention_delta(delta, d_out, out);
  }
};

template <class F>
void measure(benchmark::State& state, const Setting& setting, F run) {
  Block block(setting);
  const double before = static_cast<double>(block.kernels.flops());
  const double start = processor_seconds();
  for (auto _ : state) run(block);
  const double seconds = processor_seconds() - start;
  const double rate = (static_cast<double>(block.kernels.flops()) - before) / seconds;
  state.counters["GFLOP/s"] = rate / 1e9;
  state.counters["times_plain"] = rate / plain_rate(setting.D);
}

void measure_plain(benchmark::State& state, std::int64_t D) {
  double rate = 0;
  for (auto _ : state) {
    rate = plain_rate(D);
    state.SetIterationTime(
        static_cast<double>(attention_flops(kTokens * kTokens, 1, kHeads, D, D)) / rate);
  }
  state.counters["GFLOP/s"] = rate / 1e9;
}

void register_all() {
  using benchmark::RegisterBenchmark;
  using benchmark::State;
  for (const std::int64_t D : {std::int64_t{64}, std::int64_t{128}}) {
    const std::string size = "/D" + std::to_string(D);
    RegisterBenchmark(("plain_loops/f32" + size).c_str(), measure_plain, D)
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const bool causal : {false, true}) {
        const Setting setting{dtype, D, causal};
        const std::string name = std::string(name_of(dtype)) + size + (causal ? "/causal" : "");
        RegisterBenchmark(("forward/" + name).c_str(), [setting](State& state) {
          measure(state, setting, [](Block& block) {
            block.kernels.attention(block.block(), {block.out, block.lse});
          });
        })->Unit(benchmark::kMillisecond);
        RegisterBenchmark(("backward/" + name).c_str(), [setting](State& state) {
          measure(state, setting, [](Block& block) {
            block.kernels.attention_backward(block.block(), block.d_out, block.lse, block.delta,
                                             block.gradients);
          });
        })->Unit(benchmark::kMillisecond);
      }
    }
  }
}

}  // namespace
}  // namespace sp

int main(int argc, char** argv) {
  sp::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
