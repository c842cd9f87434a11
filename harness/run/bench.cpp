// SPDX-License-Identifier: Apache-2.0
#include "harness/run/bench.hpp"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <new>
#include <numeric>
#include <utility>

#include "harness/run/cores.hpp"
#include "harness/run/distribute.hpp"
#include "harness/run/meet.hpp"
#include "harness/run/meter.hpp"
#include "harness/run/verify.hpp"
#include "harness/run/waiting.hpp"

namespace sp {
namespace {

using Seconds = std::chrono::duration<double>;

// One pass of one rank.
struct Sample {
  double time_s = 0, waiting_s = 0, cpu_s = 0;
  double communicating_s = 0;  // of devices
};
struct RankRecord {
  Placement placement;
  std::vector<std::vector<Sample>> samples;                  // [pass][repetition]
  std::vector<MeasuredPass> costs;                           // [pass], of the last repetition
  DeviceClock::Peak peak{BenchRow::kNone, BenchRow::kNone};  // of the rank's device
};

double thread_cpu_s() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class RankTimer {
 public:
  RankTimer(Machine& machine, const WaitingCommunicator& comm, int passes, DType storage)
      : machine_(machine), comm_(comm) {
    if (machine.device != nullptr) record_.peak = machine.device->peak(storage);
    record_.placement = placement_of_this_thread();
    record_.samples.resize(static_cast<std::size_t>(passes));
    record_.costs.resize(static_cast<std::size_t>(passes));
  }

  template <class Work>
  auto time(std::size_t pass, bool counts, Work&& work) {
    meet(machine_);
    if (machine_.device != nullptr) machine_.device->start();  // everybody has met there too
    const Meter meter(machine_);
    const double cpu = thread_cpu_s();
    const auto waited = comm_.waited();
    const auto begin = std::chrono::steady_clock::now();
    auto result = work();
    DeviceClock::Pass on_device;
    if (machine_.device != nullptr) on_device = machine_.device->stop();
    const Seconds time = std::chrono::steady_clock::now() - begin;
    if (counts) {
      const Seconds waiting = comm_.waited() - waited;
      Sample sample{time.count(), waiting.count(), thread_cpu_s() - cpu};
      if (machine_.device != nullptr) {
        sample.time_s = on_device.time_s;
        sample.waiting_s = on_device.exposed_s;
        sample.communicating_s = on_device.communicating_s;
      }
      record_.samples[pass].push_back(sample);
      record_.costs[pass] = meter.read();
    }
    return result;
  }
  const RankRecord& record() const { return record_; }

 private:
  Machine& machine_;
  const WaitingCommunicator& comm_;
  RankRecord record_;
};

// As doubles, which hold 32-bit words and counts below 2^53 exactly.
std::vector<double> pack(const RankRecord& record) {
  const Placement& placement = record.placement;
  std::vector<double> numbers{static_cast<double>(placement.host >> 32),
                              static_cast<double>(placement.host & 0xffffffffu)};
  numbers.insert(numbers.end(), placement.cpus.begin(), placement.cpus.end());
  numbers.insert(numbers.end(), {record.peak.flops, record.peak.clock_hz});
  for (const MeasuredPass& cost : record.costs) {
    for (const std::int64_t count :
         {cost.bytes_sent, cost.messages_sent, cost.flops, cost.peak_bytes})
      numbers.push_back(static_cast<double>(count));
  }
  for (const auto& pass : record.samples) {
    for (const Sample& sample : pass)
      numbers.insert(numbers.end(),
                     {sample.time_s, sample.waiting_s, sample.cpu_s, sample.communicating_s});
  }
  return numbers;
}

// The inverse, for a record with the passes and repetitions of `like`.
RankRecord unpack(const std::vector<double>& numbers, const RankRecord& like) {
  RankRecord record = like;
  auto next = numbers.begin();
  const auto high = static_cast<std::uint64_t>(*next++);
  record.placement.host = high << 32 | static_cast<std::uint64_t>(*next++);
  for (std::uint32_t& word : record.placement.cpus) word = static_cast<std::uint32_t>(*next++);
  record.peak = {next[0], next[1]};
  next += 2;
  for (MeasuredPass& cost : record.costs) {
    for (std::int64_t* count :
         {&cost.bytes_sent, &cost.messages_sent, &cost.flops, &cost.peak_bytes})
      *count = static_cast<std::int64_t>(*next++);
  }
  for (auto& pass : record.samples) {
    for (Sample& sample : pass) {
      for (double* number :
           {&sample.time_s, &sample.waiting_s, &sample.cpu_s, &sample.communicating_s})
        *number = *next++;
    }
  }
  return record;
}

// Every rank's record on rank 0, in rank order; elsewhere the result is empty.
std::vector<RankRecord> gather(Machine& machine, const RankRecord& mine) {
  std::vector<double> numbers = pack(mine);
  const Tensor::Extents shape{static_cast<std::int64_t>(numbers.size()), 1, 1, 1};
  const Label label{"timings", 0};
  const auto allocate = [&] { return machine.memory.allocate(DType::kF64, shape, label.tensor); };
  std::vector<Message> sends, receives;
  if (machine.comm.rank() != 0) {
    sends.push_back({0, allocate(), label});
    machine.memory.upload(sends.back().data, numbers.data());
  } else {
    for (int rank = 1; rank < machine.comm.size(); ++rank)
      receives.push_back({rank, allocate(), label});
  }
  machine.comm.exchange(sends, receives).wait();
  std::vector<RankRecord> all;
  if (machine.comm.rank() == 0) all.push_back(mine);
  for (const Message& message : receives) {
    machine.memory.download(numbers.data(), message.data);
    all.push_back(unpack(numbers, mine));
  }
  return all;
}

// Largest over mean; 1 where nobody has anything.
double imbalance(const std::vector<double>& of_ranks) {
  const double total = std::accumulate(of_ranks.begin(), of_ranks.end(), 0.0);
  if (total == 0) return 1;
  return *std::max_element(of_ranks.begin(), of_ranks.end()) *
         static_cast<double>(of_ranks.size()) / total;
}

PassRecord over_ranks(const std::vector<RankRecord>& ranks, std::size_t pass) {
  PassRecord record;
  for (const RankRecord& rank : ranks) {
    const MeasuredPass& cost = rank.costs[pass];
    record.bytes_sent = std::max(record.bytes_sent, cost.bytes_sent);
    record.messages_sent = std::max(record.messages_sent, cost.messages_sent);
    record.peak_bytes = std::max(record.peak_bytes, cost.peak_bytes);
    record.flops += cost.flops;
  }
  for (std::size_t i = 0; i < ranks.front().samples[pass].size(); ++i) {
    Sample sum;
    double slowest = 0;
    for (const RankRecord& rank : ranks) {
      const Sample& sample = rank.samples[pass][i];
      slowest = std::max(slowest, sample.time_s);
      sum.waiting_s += sample.waiting_s;
      sum.cpu_s += sample.cpu_s;
      sum.communicating_s += sample.communicating_s;
    }
    record.time_s.push_back(slowest);
    record.waiting_s.push_back(sum.waiting_s / static_cast<double>(ranks.size()));
    record.cpu_s.push_back(sum.cpu_s);
    if (!std::isnan(ranks.front().peak.flops))
      record.communicating_s.push_back(sum.communicating_s / static_cast<double>(ranks.size()));
  }
  return record;
}

void fill(BenchRow& row, const std::vector<RankRecord>& ranks, const Backend& backend) {
  const RankRecord& first = ranks.front();
  for (std::size_t pass = 0; pass < first.samples.size(); ++pass)
    row.passes.push_back(over_ranks(ranks, pass));
  std::vector<Placement> placements;
  std::vector<double> flops;
  for (const RankRecord& rank : ranks) {
    placements.push_back(rank.placement);
    flops.push_back(0);
    for (const MeasuredPass& cost : rank.costs) flops.back() += static_cast<double>(cost.flops);
  }
  row.cores = usable_cores(placements);
  row.peak_flops = first.peak.flops;
  row.peak_clock_hz = first.peak.clock_hz;
  if (!std::isnan(row.peak_flops)) row.cores = backend.devices(row.ranks);
  row.flops_imbalance = imbalance(flops);
  for (std::size_t i = 0; i < first.samples.front().size(); ++i) {
    std::vector<double> busy;
    for (const RankRecord& rank : ranks) {
      busy.push_back(0);
      for (const auto& pass : rank.samples) busy.back() += pass[i].time_s - pass[i].waiting_s;
    }
    row.busy_imbalance.push_back(imbalance(busy));
  }
}

std::vector<RankRecord> time_ranks(Backend& backend, const Algorithm& algorithm, const Case& drawn,
                                   const Inputs& inputs, const BenchOptions& options,
                                   std::atomic<bool>& out_of_memory) {
  const Layout layout(algorithm.sharding, drawn.problem.shape.N, drawn.world.size);
  std::vector<RankRecord> result;
  const auto time_rank = [&](Machine& machine) {
    WaitingCommunicator comm(machine.comm);
    Context ctx{comm, machine.kernels, machine.memory, drawn.world.node_size, drawn.world.splits};
    const int rank = comm.rank();
    const Shards shards = scatter(drawn.problem, inputs, layout, rank, machine.memory);
    const Tensor d_out = options.backward
                             ? scatter(inputs.d_out, layout.tokens(rank), machine.memory, "d_out")
                             : Tensor();
    RankTimer timer(machine, comm, options.backward ? 2 : 1, drawn.problem.dtype);
    for (int repetition = -options.warmups; repetition < options.repetitions; ++repetition) {
      const bool counts = repetition >= 0;
      const Forward forward = timer.time(0, counts, [&] { return algorithm.forward(ctx, shards); });
      if (options.backward)
        timer.time(1, counts, [&] { return algorithm.backward(ctx, shards, forward, d_out); });
    }
    std::vector<RankRecord> all = gather(machine, timer.record());
    if (rank == 0) result = std::move(all);
  };
  backend.run(drawn.world.size, options.rig, [&](Machine& machine) {
    try {
      time_rank(machine);
    } catch (const std::bad_alloc&) {  // a back-end only tells that a rank failed
      out_of_memory = true;
      throw;
    }
  });
  return result;
}

// Whether the algorithm is right on the short problem, or on the whole one if it refuses that.
bool passes_check(Backend& backend, const Algorithm& algorithm, const Case& drawn,
                  const BenchOptions& options, BenchRow& row) {
  const Case small = short_case(drawn);
  const bool fits = algorithm.supports(small.problem, small.world).has_value();
  const CaseReport report =
      check_case(backend, options.rig, algorithm, fits ? small : drawn, options.backward);
  if (const TensorVerdict* worst = report.verdict.worst(); worst != nullptr) {
    const Judgement highest = worst->highest();
    row.max_error = highest.error;
    row.limit = highest.limit;
    row.worst_ratio = highest.ratio;
  }
  row.status = report.message.empty() ? RowStatus::kOk : RowStatus::kFailed;
  row.reason = report.message;
  return report.message.empty();
}

}  // namespace

Case short_case(const Case& drawn) {
  Case small = drawn;
  std::int64_t& N = small.problem.shape.N;
  N = std::min<std::int64_t>(N, 4 * std::int64_t{drawn.world.size} + 3);
  return small;
}

BenchRow empty_row(const Algorithm& algorithm, const std::string& backend, const Problem& problem,
                   int ranks) {
  return {.algorithm = algorithm.id,
          .backend = backend,
          .module = problem.module ? std::string(name_of(*problem.module)) : "",
          .tokens = problem.shape.N,
          .ranks = ranks,
          .problem = describe(problem)};
}

BenchRow bench(Backend& backend, const Algorithm& algorithm, const Case& drawn,
               const Inputs& inputs, const BenchOptions& options) {
  const Problem& problem = drawn.problem;
  SP_CHECK(problem.mask.segment_ids.empty(), "bench cuts problems, which documents do not survive");
  BenchRow row = empty_row(algorithm, backend.name(), problem, drawn.world.size);
  validate(drawn.world, backend);
  if (const Support support = algorithm.supports(problem, drawn.world); !support) {
    row.status = RowStatus::kSkipped;
    row.reason = support.error().reason;
    return row;
  }
  std::atomic<bool> out_of_memory = false;
  try {
    if (!passes_check(backend, algorithm, drawn, options, row)) return row;
    const auto ranks = time_ranks(backend, algorithm, drawn, inputs, options, out_of_memory);
    if (!ranks.empty()) fill(row, ranks, backend);
  } catch (const Error& error) {
    if (!backend.survives_failure()) throw;
    row.status = out_of_memory ? RowStatus::kOom : RowStatus::kFailed;
    row.reason = error.what();
  }
  return row;
}

}  // namespace sp
