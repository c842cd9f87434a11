// Speed of the kernels of linear attention on one core, beside the recurrence over tokens as plain
// loops over the same data.
//
// Counters: GFLOP/s by the counting rule of linear.hpp, and times_plain, how many tokens the kernel
// processes in the time in which the plain loops (one thread, f32, timed in this run) process one.
// The plain loops have no decay and run forward only; backward is divided by the same time. All is
// processor time.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/cpu_memory.hpp"

namespace sp {
namespace {

constexpr std::int64_t kTokens = 32768;

struct Setting {
  Module module;
  DType dtype;
  std::int64_t D;
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

// phi of one vector by its definition; the layer norm of Rebased is left out.
void plain_map(Module module, const float* x, std::int64_t D, float* phi) {
  if (!is_normalised(module)) {
    std::copy_n(x, D, phi);
    return;
  }
  const float root = std::sqrt(static_cast<float>(D));
  if (module == Module::kBased) {
    *phi++ = 1;
    for (std::int64_t a = 0; a < D; ++a) *phi++ = x[a] / std::sqrt(root);
  }
  const float square = module == Module::kBased ? std::sqrt(0.5f) : 1.0f;
  for (std::int64_t a = 0; a < D; ++a) *phi++ = square * x[a] * x[a] / root;
  for (std::int64_t a = 0; a < D; ++a) {
    for (std::int64_t b = a + 1; b < D; ++b) *phi++ = x[a] * x[b] / (square * root);
  }
}

// state = state + phi(k) vT, out = phi(q) state, token by token, without decay.
void plain_linear(Module module, const std::vector<float>& q, const std::vector<float>& k,
                  const std::vector<float>& v, std::vector<float>& out, std::int64_t D) {
  const std::int64_t F = features_of(module, D);
  std::vector<float> state(static_cast<std::size_t>(F * D));
  std::vector<float> query(static_cast<std::size_t>(F)), key(query.size());
  for (std::int64_t i = 0; i < kTokens; ++i) {
    const auto at = static_cast<std::size_t>(i * D);
    plain_map(module, &q[at], D, query.data());
    plain_map(module, &k[at], D, key.data());
    const float* value = &v[at];
    float* sum = &out[at];
    std::fill(sum, sum + D, 0.0f);
    for (std::size_t f = 0; f < query.size(); ++f) {
      float* row = &state[f * static_cast<std::size_t>(D)];
      for (std::int64_t e = 0; e < D; ++e) {
        row[e] += key[f] * value[e];
        sum[e] += query[f] * row[e];
      }
    }
  }
}

// Tokens per second of the plain loops, the median of three, measured once.
double plain_rate(Module module, std::int64_t D) {
  static std::map<std::pair<Module, std::int64_t>, double> rates;
  if (!is_normalised(module)) module = Module::kBasic;
  const auto known = rates.find({module, D});
  if (known != rates.end()) return known->second;
  const auto q = numbers(kTokens * D, 1), k = numbers(kTokens * D, 2), v = numbers(kTokens * D, 3);
  std::vector<float> out(q.size());
  std::vector<double> seconds;
  for (int repetition = 0; repetition < 3; ++repetition) {
    const double start = processor_seconds();
    plain_linear(module, q, k, v, out, D);
    benchmark::DoNotOptimize(out.data());
    seconds.push_back(processor_seconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return rates[{module, D}] = static_cast<double>(kTokens) / seconds[1];
}

struct Chunk {
  CpuMemory memory;
  CpuKernels kernels;
  LinearTerms terms;
  Tensor q, k, v, before, after, d_after, sums, d_sums;
  LinearGradients gradients;
  LinearBlock block() const { return {q, k, v, {1, 1, kTokens}, terms}; }

  explicit Chunk(const Setting& setting) : terms{.module = setting.module} {
    const std::int64_t D = setting.D, F = features_of(setting.module, D);
    const std::int64_t W = D + (is_normalised(setting.module) ? 1 : 0);
    const DType accumulator = accumulator_of(setting.dtype);
    const auto filled = [&](DType dtype, Tensor::Extents shape, std::uint32_t seed, float factor) {
      const Tensor wide = memory.allocate(DType::kF32, shape, "wide");
      std::vector<float> values = numbers(wide.elements(), seed);
      for (float& value : values) value = factor * (factor < 0 ? std::abs(value) : value);
      memory.upload(wide, values.data());
      const Tensor tensor = memory.allocate(dtype, shape, "operand");
      kernels.copy(tensor, wide);
      return tensor;
    };
    q = filled(setting.dtype, {kTokens, 1, 1, D}, 1, 1);
    k = filled(setting.dtype, q.shape(), 2, 1);
    v = filled(setting.dtype, q.shape(), 3, 1);
    d_sums = filled(accumulator, {kTokens, 1, 1, W}, 4, 1);
    before = filled(accumulator, {F, 1, 1, W}, 5, 1);
    d_after = filled(accumulator, before.shape(), 6, 1);
    const auto zeros = [&](Tensor::Extents extents) {
      const Tensor tensor = memory.allocate(accumulator, extents, "sum");
      kernels.fill(tensor, 0);
      return tensor;
    };
    sums = zeros(d_sums.shape()), after = zeros(before.shape());
    gradients = {zeros(q.shape()), zeros(k.shape()), zeros(v.shape()), {}, {}, {}};
    terms.gamma = gradients.d_gamma = filled(accumulator, {1, 1, 1, D}, 7, 1);
    terms.beta = gradients.d_beta = filled(accumulator, {1, 1, 1, D}, 8, 1);
    if (decay_of(setting.module) == Decay::kNone) return;
    const bool per_head = decay_of(setting.module) == Decay::kPerHead;
    terms.log_decay =
        filled(accumulator, per_head ? Tensor::Extents{1, 1, 1, 1} : q.shape(), 9, -0.1f);
    gradients.decay_terms = zeros({kTokens, 1, 1, per_head ? 1 : D});
  }
};

template <class F>
void measure(benchmark::State& state, const Setting& setting, F run) {
  Chunk chunk(setting);
  run(chunk);
  const double before = static_cast<double>(chunk.kernels.flops());
  const double start = processor_seconds();
  for (auto _ : state) run(chunk);
  const double seconds = processor_seconds() - start;
  const double flops = static_cast<double>(chunk.kernels.flops()) - before;
  const double tokens = static_cast<double>(kTokens) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = flops / seconds / 1e9;
  state.counters["Mtokens/s"] = tokens / seconds / 1e6;
  state.counters["times_plain"] = tokens / seconds / plain_rate(setting.module, setting.D);
}

void measure_plain(benchmark::State& state, Module module, std::int64_t D) {
  const double rate = plain_rate(module, D);
  for (auto _ : state) state.SetIterationTime(static_cast<double>(kTokens) / rate);
  state.counters["Mtokens/s"] = rate / 1e6;
}

void register_all() {
  using benchmark::RegisterBenchmark;
  using benchmark::State;
  const auto size_of_head = [](Module module) -> std::int64_t {
    return is_normalised(module) ? 16 : 128;
  };
  for (const Module module : {Module::kBasic, Module::kBased, Module::kRebased}) {
    std::string name("plain_recurrence/");
    name.append(name_of(module)).append("/f32");
    RegisterBenchmark(name.c_str(), measure_plain, module, size_of_head(module))
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  }
  for (const Module module : kModules) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Setting setting{module, dtype, size_of_head(module)};
      std::string name("/");
      name.append(name_of(module)).append("/").append(name_of(dtype));
      name.append("/D").append(std::to_string(setting.D));
      const auto add = [&](const std::string& kernel, auto run) {
        RegisterBenchmark((kernel + name).c_str(), [setting, run](State& state) {
          measure(state, setting, run);
        })->Unit(benchmark::kMillisecond);
      };
      add("forward",
          [](Chunk& c) { c.kernels.linear_forward(c.block(), c.before, c.sums, c.after); });
      add("state", [](Chunk& c) { c.kernels.linear_state(c.block(), c.after); });
      add("inter", [](Chunk& c) { c.kernels.linear_inter(c.block(), c.before, c.sums); });
      add("d_q", [](Chunk& c) {
        c.kernels.linear_d_q(c.block(), c.before, c.d_sums, c.gradients, c.after);
      });
      add("d_kv", [](Chunk& c) {
        c.kernels.linear_d_kv(c.block(), c.d_after, c.d_sums, c.gradients, c.after);
      });
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
