// SPDX-License-Identifier: Apache-2.0
#include "harness/run/dry_run.hpp"

#include <algorithm>
#include <map>

#include "harness/run/phantom.hpp"

namespace sp {
namespace {

struct Arrived final : Operation {
  void wait() override {}
};

class DryCommunicator final : public Communicator {
 public:
  DryCommunicator(int rank, int size, std::shared_ptr<Traffic> traffic)
      : Communicator(rank, size, std::move(traffic)) {}

 protected:
  std::unique_ptr<Operation> start(Request) override { return std::make_unique<Arrived>(); }
  std::unique_ptr<Communicator> start_split(int, int) override {
    SP_CHECK(false,
             "a rank alone does not know what the others choose; name the members of a group");
  }
  std::unique_ptr<Communicator> start_group(const Ranks& members) override {
    return std::make_unique<DryCommunicator>((rank() - members.first) / members.stride,
                                             members.count, shared_traffic());
  }
};

// Keeps what lived when memory was highest since the last reset.
class RememberingMemory final : public PhantomMemory {
 public:
  RememberingMemory() : PhantomMemory(kUnlimited, 0) {}
  std::vector<LiveTensors> at_peak() const {
    std::vector<LiveTensors> sorted;
    for (const auto& [name, live] : highest_) {
      if (live.bytes > 0) sorted.push_back(live);
    }
    std::ranges::stable_sort(sorted, std::greater(), &LiveTensors::bytes);
    return sorted;
  }
  void forget_peak() {
    reset_peak();
    highest_ = live_;
  }

 protected:
  void changed(const char* name, std::int64_t bytes) override {
    LiveTensors& live = live_[name];
    live.name = name;
    live.bytes += bytes;
    live.count += bytes > 0 ? 1 : bytes < 0 ? -1 : 0;
    if (bytes > 0 && live_bytes() == peak_bytes()) highest_ = live_;
  }

 private:
  std::map<std::string, LiveTensors> live_, highest_;
};

}  // namespace

DryRun dry_run(const Algorithm& algorithm, const Problem& problem, const World& world, int rank) {
  RememberingMemory memory;
  PhantomKernels kernels;
  DryCommunicator comm(rank, world.size, std::make_shared<Traffic>());
  Machine machine{comm, kernels, memory};
  Context ctx{comm, kernels, memory, world.node_size, world.splits};
  const Layout layout(algorithm.sharding, problem.shape.N, world.size);
  const Shards shards = phantom_shards(problem, layout, rank, memory);
  DryRun run;
  const auto take = [&](DryPass& pass, auto&& body) {
    memory.forget_peak();
    const Meter meter(machine);
    auto result = body();
    pass.done = meter.read();
    pass.at_peak = memory.at_peak();
    return result;
  };
  const Forward forward = take(run.forward, [&] { return algorithm.forward(ctx, shards); });
  const Tensor d_out = phantom_d_out(problem, layout, rank, memory);
  take(run.backward, [&] { return algorithm.backward(ctx, shards, forward, d_out); });
  return run;
}

}  // namespace sp
