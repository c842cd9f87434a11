// Real data through the simulated cluster: the same bits as on threads, and the reference's answer.
// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "harness/run/verify.hpp"
#include "tests/property/everyone.hpp"
#include "tests/simulated/sim_fixture.hpp"

namespace sp::test {
namespace {

Backend& simulated() {
  static const std::unique_ptr<Backend> backend = [] {
    Platform platform = cluster_of(4);
    platform.fabric = {4, 4, kPort, kLatency};
    platform.comm.operation_s = platform.comm.step_s = 1e-6;
    platform.comm.channel_bandwidth = kPort;
    platform.comm.compute_share = {0.9};
    return make_sim_backend(platform);
  }();
  return *backend;
}

// What is computed is sanitized on threads: here it is the simulated machine.
#ifdef SP_SANITIZED
constexpr int kProblems = 3;
#else
constexpr int kProblems = 6;
#endif

class Carrying : public Everyone {};

TEST_P(Carrying, GivesTheBitsOfThreads) {
  const Algorithm& algorithm = *GetParam();
  Pins pins;
  pins.ranks = {1, 2, 3, 4, 6, 8};
  pins.head_size = 8;
  int problems = 0;
  for (std::uint64_t index = 0; problems < kProblems; ++index) {
    const sp::Case drawn = drawn_case(pins, algorithm.family, 7, index);
    if (!algorithm.supports(drawn.problem, drawn.world)) continue;
    ++problems;
    const Inputs inputs = make_inputs(drawn);
    const Outputs real = run(algorithm, drawn.problem, inputs, drawn.world);
    const Execution carried =
        execute(simulated(), {}, algorithm, drawn.problem, inputs, drawn.world);
    ASSERT_TRUE(same_bits(carried.outputs, real)) << describe(drawn);
  }
}

TEST_P(Carrying, IsVerifiedInCheckedMode) {
  const Algorithm& algorithm = *GetParam();
  VerifyOptions options;
  options.algorithms = {&algorithm};
  options.seed = 8;
  options.cases = kProblems;
  options.per_module = modules_of(algorithm).front().has_value();
  options.rig.checked = true;
  options.rig.fence = Fence::kPoisonAndCanary;
#ifdef SP_SANITIZED
  options.pins.longest = 0;  // long problems are sanitized on threads, in Equivalence
#endif
  for (const AlgorithmReport& report : verify(simulated(), options)) {
    EXPECT_TRUE(report.passed()) << (report.failure ? report.failure->message : "no case");
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Carrying, testing::ValuesIn(algorithms()), id_of);

// Every collective once, on unequal sizes, and messages on a split communicator. Returns what rank
// 0 has seen of all.
std::vector<float> all_collectives(Backend& backend, int ranks) {
  std::vector<float> seen;
  backend.run(ranks, {}, [&](Machine& machine) {
    Communicator& comm = machine.comm;
    const int rank = comm.rank();
    const auto filled = [&](std::int64_t rows, int seed) {
      const Tensor tensor = machine.memory.allocate(DType::kF32, {rows, 1, 1, 1}, "t");
      std::vector<float> values(static_cast<std::size_t>(rows));
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = 1 / (1 + static_cast<float>(i) + static_cast<float>(seed) * 0.7f);
      }
      machine.memory.upload(tensor, values.data());
      return tensor;
    };
    std::vector<Tensor> results;
    const auto many = [&](auto&& rows_of, int seed) {
      std::vector<Tensor> tensors;
      for (int each = 0; each < comm.size(); ++each) {
        tensors.push_back(filled(rows_of(each), seed + each));
      }
      return tensors;
    };
    std::vector<Pending> pending;
    const auto own = [](int each) { return std::int64_t{1 + each}; };
    const std::vector<Tensor> gathered = many(own, 100);
    pending.push_back(comm.all_gather(filled(own(rank), rank), gathered, {"gather", 0}));
    const Tensor sum = filled(own(rank), 0);
    pending.push_back(comm.reduce_scatter(many(own, rank), sum, {"scatter", 0}));
    const Tensor total = filled(7, rank);
    pending.push_back(comm.all_reduce(total, {"reduce", 0}));
    const std::vector<Tensor> swapped =
        many([&](int each) { return std::int64_t{rank + 2 * each}; }, 5);
    pending.push_back(comm.all_to_all(
        many([&](int each) { return std::int64_t{each + 2 * rank}; }, rank), swapped, {"swap", 0}));
    const Tensor told = filled(5, rank);
    pending.push_back(comm.broadcast(told, ranks - 1, {"tell", 0}));
    Communicator& half = comm.group("half", {rank % 2, 2, (comm.size() + 1 - rank % 2) / 2});
    const Tensor passed = filled(3, rank), received = filled(3, 50);
    const int next = (half.rank() + 1) % half.size();
    const int previous = (half.rank() + half.size() - 1) % half.size();
    pending.push_back(
        half.exchange({{next, passed, {"pass", 0}}}, {{previous, received, {"pass", 0}}}));
    for (auto each = pending.rbegin(); each != pending.rend(); ++each) each->wait();
    results = gathered;
    results.insert(results.end(), swapped.begin(), swapped.end());
    for (const Tensor& each : {sum, total, told, received}) results.push_back(each);
    // Everything to rank 0, in rank order.
    std::int64_t rows = 0;
    for (const Tensor& each : results) rows += each.extent(0);
    const Tensor packed = machine.memory.allocate(DType::kF32, {rows, 1, 1, 1}, "packed");
    std::int64_t row = 0;
    for (const Tensor& each : results) {
      machine.kernels.copy(packed.rows(row, row + each.extent(0)), each);
      row += each.extent(0);
    }
    const Tensor size = machine.memory.allocate(DType::kF32, {1, 1, 1, 1}, "size");
    const auto value = static_cast<float>(rows);
    machine.memory.upload(size, &value);
    const std::vector<Tensor> sizes = many([](int) { return std::int64_t{1}; }, 0);
    comm.all_gather(size, sizes, {"sizes", 0}).wait();
    std::vector<Tensor> all;
    for (const Tensor& each : sizes) {
      float count = 0;
      machine.memory.download(&count, each);
      all.push_back(filled(static_cast<std::int64_t>(count), 0));
    }
    comm.all_gather(packed, all, {"all", 0}).wait();
    if (rank != 0) return;
    for (const Tensor& each : all) {
      std::vector<float> values(static_cast<std::size_t>(each.extent(0)));
      machine.memory.download(values.data(), each);
      seen.insert(seen.end(), values.begin(), values.end());
    }
  });
  return seen;
}

TEST(CarryingCollectives, GiveTheBitsOfThreads) {
  for (const int ranks : {1, 2, 3, 5, 8, 16}) {
    EXPECT_EQ(all_collectives(simulated(), ranks), all_collectives(threads(), ranks)) << ranks;
  }
}

TEST(CarryingMessages, HoldWhatTheBufferHeldAtThePost) {
  float arrived = 0;
  simulated().run(2, {}, [&](Machine& machine) {
    const Tensor tensor = machine.memory.allocate(DType::kF32, {1, 1, 1, 1}, "t");
    if (machine.comm.rank() == 0) {
      machine.kernels.fill(tensor, 1);
      Pending pending = machine.comm.exchange({{1, tensor, {"t", 0}}}, {});
      machine.kernels.fill(tensor, 2);
      pending.wait();
    } else {
      machine.comm.exchange({}, {{0, tensor, {"t", 0}}}).wait();
      machine.memory.download(&arrived, tensor);
    }
  });
  EXPECT_EQ(arrived, 1);
}

TEST(CarryingBackend, RefusesChaosAndRunsAgainAfterAFailure) {
  Rig rig;
  rig.chaos = 1;
  EXPECT_TRUE(says(error_of([&] { simulated().run(2, rig, [](Machine&) {}); }), "chaos"));
  EXPECT_EQ(error_of([] {
              simulated().run(3, {}, [](Machine& machine) {
                const Tensor data = bytes(machine, 8);
                Pending pending = receive(machine.comm, data, (machine.comm.rank() + 1) % 3);
                if (machine.comm.rank() == 2) throw Error(ErrorKind::kUsage, "stop");
                pending.wait();
              });
            }),
            "rank 2: stop");
  EXPECT_TRUE(simulated().survives_failure());
  EXPECT_EQ(all_collectives(simulated(), 4), all_collectives(threads(), 4));
}

}  // namespace
}  // namespace sp::test
