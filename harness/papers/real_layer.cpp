// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/real_layer.hpp"

#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <thread>

#include "harness/compare/oracle.hpp"
#include "harness/generate/values.hpp"
#include "harness/run/distribute.hpp"
#include "harness/run/meet.hpp"
#include "harness/run/meter.hpp"

namespace sp {
namespace {

using Clock = std::chrono::steady_clock;

// 256 levels of equal distance between -sqrt(3) and sqrt(3): one random byte per element.
HostTensor bytes_as_values(std::int64_t tokens, std::int64_t size, std::uint64_t seed) {
  HostTensor tensor(DType::kBF16, {1, tokens, 1, size});
  std::vector<bf16> levels;
  for (int byte = 0; byte < 256; ++byte)
    levels.push_back(to_bf16(static_cast<float>((byte - 127.5) / 128 * std::sqrt(3.0))));
  Stream random(seed);
  std::uint64_t word = 0;
  std::int64_t left = 0;
  for (bf16& element : tensor.as<bf16>()) {
    if (left == 0) {
      word = random.next();
      left = 8;
    }
    element = levels[word & 255];
    word >>= 8;
    --left;
  }
  return tensor;
}

Problem problem_of(const RealLayer& layer) {
  Problem problem;
  problem.shape = {1, layer.tokens, 1, 1, layer.head_size, layer.head_size};
  problem.mask.causal = true;
  problem.dtype = DType::kBF16;
  problem.module = Module::kBasic;
  return problem;
}

Inputs inputs_of(const RealLayer& layer, std::int64_t head) {
  Inputs inputs;
  std::vector<std::jthread> threads;
  std::uint64_t seed = layer.seed * 1000 + static_cast<std::uint64_t>(head) * 4;
  for (HostTensor* tensor : {&inputs.q, &inputs.k, &inputs.v, &inputs.d_out}) {
    threads.emplace_back(
        [&, tensor, seed] { *tensor = bytes_as_values(layer.tokens, layer.head_size, seed); });
    ++seed;
  }
  return inputs;
}

// One rank's times and costs; the slowest and largest of all ranks are taken later.
struct RankTimes {
  double forward_s = 0, backward_s = 0;
  std::int64_t peak_bytes = 0, bytes_sent = 0;
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

RankTimes run_rank(Machine& machine, const Algorithm& algorithm, const Problem& problem,
                   const Inputs& inputs, Outputs& outputs) {
  const Layout layout(algorithm.sharding, problem.shape.N, machine.comm.size());
  const Tokens mine = layout.tokens(machine.comm.rank());
  Context ctx{machine.comm, machine.kernels, machine.memory};
  const Shards shards = scatter(problem, inputs, layout, machine.comm.rank(), machine.memory);
  const Tensor d_out = scatter(inputs.d_out, mine, machine.memory, "d_out");
  RankTimes times;
  meet(machine);
  const Meter forward_meter(machine);
  Clock::time_point begin = Clock::now();
  const Forward forward = algorithm.forward(ctx, shards);
  times.forward_s = seconds_since(begin);
  const MeasuredPass first = forward_meter.read();
  meet(machine);
  const Meter backward_meter(machine);
  begin = Clock::now();
  const Gradients gradients = algorithm.backward(ctx, shards, forward, d_out);
  times.backward_s = seconds_since(begin);
  const MeasuredPass second = backward_meter.read();
  times.peak_bytes = std::max(first.peak_bytes, second.peak_bytes);
  times.bytes_sent = first.bytes_sent + second.bytes_sent;
  // Ranks are threads here and their rows disjoint: no gathering.
  place(outputs.out, forward.out, mine, machine.memory);
  place(outputs.d_q, gradients.d_q, mine, machine.memory);
  place(outputs.d_k, gradients.d_k, mine, machine.memory);
  place(outputs.d_v, gradients.d_v, mine, machine.memory);
  return times;
}

void run_head(Backend& backend, const Problem& problem, const Inputs& inputs, int ranks,
              RealLayerRow& row, Outputs& outputs) {
  std::vector<RankTimes> times(static_cast<std::size_t>(ranks));
  backend.run(ranks, {}, [&](Machine& machine) {
    times[static_cast<std::size_t>(machine.comm.rank())] =
        run_rank(machine, *row.algorithm, problem, inputs, outputs);
  });
  double forward_s = 0, backward_s = 0;
  for (const RankTimes& rank : times) {
    forward_s = std::max(forward_s, rank.forward_s);
    backward_s = std::max(backward_s, rank.backward_s);
    row.peak_bytes = std::max(row.peak_bytes, rank.peak_bytes);
    row.bytes_sent = std::max(row.bytes_sent, rank.bytes_sent);
  }
  row.forward_s.push_back(forward_s);
  row.backward_s.push_back(backward_s);
}

void judge(const Oracle& oracle, const Outputs& outputs, std::int64_t head, RealLayerRow& row) {
  const Verdict verdict = oracle.judge(outputs, row.algorithm->roundings);
  row.passed = row.passed && verdict.passed();
  const TensorVerdict* worst = verdict.worst();
  const double before = row.worst_ratio.empty()
                            ? -1
                            : *std::max_element(row.worst_ratio.begin(), row.worst_ratio.end());
  row.worst_ratio.push_back(worst == nullptr ? 0 : worst->highest().ratio);
  if (worst != nullptr && !(worst->highest().ratio <= before))
    row.worst = "head " + std::to_string(head) + ": " + describe(*worst);
}

std::int64_t process_peak_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

// Freed memory stays with the process, as with the allocators of training frameworks. Otherwise every
// pass gets fresh pages, and touching them first took a third of the time at 2M tokens.
void keep_freed_memory() {
#ifdef __GLIBC__
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
#endif
}

Outputs room_for(const Problem& problem) {
  const std::vector<std::int64_t> shape{1, problem.shape.N, 1, problem.shape.D};
  Outputs outputs;
  for (HostTensor* tensor : {&outputs.out, &outputs.d_q, &outputs.d_k, &outputs.d_v})
    *tensor = HostTensor(problem.dtype, shape);
  return outputs;
}

}  // namespace

double RealLayerRow::total_s() const {
  return std::accumulate(forward_s.begin(), forward_s.end(), 0.0) +
         std::accumulate(backward_s.begin(), backward_s.end(), 0.0);
}

RealLayerResult run_real_layer(const RealLayer& layer,
                               const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const Problem problem = problem_of(layer);
  validate(problem);
  keep_freed_memory();
  // Ranks share few cores: the last one may wait for the work of all.
  const auto backend = make_thread_backend(std::chrono::minutes(60));
  RealLayerResult result;
  result.cores = static_cast<int>(std::thread::hardware_concurrency());
  for (const Algorithm* algorithm : layer.algorithms) {
    result.rows.emplace_back();
    result.rows.back().algorithm = algorithm;
  }
  const auto total = layer.heads * std::ssize(layer.algorithms);
  std::int64_t done = 0;
  Outputs outputs = room_for(problem);
  for (std::int64_t head = 0; head < layer.heads; ++head) {
    const Inputs inputs = inputs_of(layer, head);
    const Oracle oracle(problem, inputs, false, Operands::kAccumulator, {.tokens = kSampledTokens});
    result.checked_tokens = oracle.sampled() ? std::ssize(oracle.tokens()) : problem.shape.N;
    // In turn, so that no algorithm always meets what the other left in caches and memory.
    const std::int64_t count = std::ssize(result.rows);
    for (std::int64_t turn = 0; turn < count; ++turn) {
      RealLayerRow& row = result.rows[static_cast<std::size_t>((turn + head) % count)];
      run_head(*backend, problem, inputs, layer.ranks, row, outputs);
      judge(oracle, outputs, head, row);
      if (progress) progress(++done, total);
    }
  }
  result.process_bytes = process_peak_bytes();
  return result;
}

}  // namespace sp
