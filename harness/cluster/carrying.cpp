// Carrying mode: the back-end whose ranks compute on the CPU and whose messages take simulated time.
// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "harness/cluster/sim_cluster.hpp"
#include "harness/cluster/sim_communicator.hpp"
#include "harness/cluster/simulation.hpp"

namespace sp {
namespace {

class SimBackend final : public Backend {
 public:
  explicit SimBackend(Platform platform) : platform_(std::move(platform)) {}
  const char* name() const override { return "sim"; }
  int most_ranks() const override { return platform_.devices(); }
  void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) override {
    if (rig.chaos) {
      throw Error(ErrorKind::kUsage,
                  "the simulated streams run operations in the order of their posts, which chaos "
                  "changes: use the back-ends thread or mpi");
    }
    SimCluster cluster(platform_, ranks, {}, nullptr);
    const auto group = SimCommunicator::world_group(cluster);
    cluster.run([&](int rank) {
      SimClock clock(cluster, rank);
      const auto comm = SimCommunicator::world(cluster, rank, group);
      run_on_cpu(*comm, rig, body, &clock);
    });
  }
  bool survives_failure() const override { return true; }
  bool leads() const override { return true; }
  bool agree(bool leaders_verdict) override { return leaders_verdict; }

 private:
  Platform platform_;
};

}  // namespace

std::unique_ptr<Backend> make_sim_backend(Platform platform) {
  return std::make_unique<SimBackend>(std::move(platform));
}

}  // namespace sp
