// The simulated cluster: every rank is an actor that runs the algorithm text; kernels take time,
// messages are flows over the platform's links, allocations are accounted.
//
// Phantom    No data: tensors have shapes and no storage, so any size runs. simulate().
// Carrying   Small real tensors move with simulated time, computed by the CPU kernels: the same
//            object code as on threads. make_sim_backend(), which `verify --backend sim` uses.
// Order      A rank's actor is its compute timeline; every communicator has its own stream, which
//            runs its operations one after the other. Posting returns at once; wait() blocks the
//            compute timeline until the operation is done.
// Engine     SimGrid S4U; one simulation at a time per process. Deterministic.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "harness/cluster/platform.hpp"
#include "harness/results/bench_row.hpp"
#include "harness/run/meter.hpp"
#include "harness/trace/timeline.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

struct PassPrediction {
  double time_s = 0;            // from the common start to the last rank's end
  double compute_s = 0;         // in kernels, mean over ranks
  double exposed_s = 0;         // in waits, mean over ranks
  double busiest_s = 0;         // in kernels, the busiest rank
  std::int64_t flow_bytes = 0;  // that crossed the platform's links, all ranks
};

struct Prediction {
  RowStatus status = RowStatus::kUnverified;  // kOk, kSkipped (unsupported), kOom
  std::string reason;                         // unless kOk
  PassPrediction forward, backward;           // backward: zeros if left out
  std::vector<Measured> ranks;                // what each rank did, by the same meters as elsewhere
  double band = 0;                            // of the platform's calibration, relative
  double total_s() const { return forward.time_s + backward.time_s; }
};

struct SimulationOptions {
  bool backward = true;
  // Bytes per device that the model around the attention takes; counts towards capacity.
  std::int64_t resident_bytes = 0;
  bool unlimited_memory = false;
  Timeline* timeline = nullptr;  // null: none kept
  // Devices of the ranks; empty: rank r on device r.
  std::vector<int> placement;
};

// Throws Error(kUsage) for a world that does not fit the platform, Error for a broken algorithm.
Prediction simulate(const Platform& platform, const Algorithm& algorithm, const Problem& problem,
                    const World& world, const SimulationOptions& options = {});

// Runs any body on `ranks` simulated ranks without data; body(Machine) as in harness/run. For tests
// and for what is not a registered algorithm.
struct PhantomRun {
  double time_s = 0;
  std::vector<double> rank_end_s;
  std::int64_t flow_bytes = 0;
};
PhantomRun run_phantom(const Platform& platform, int ranks,
                       const std::function<void(Machine&)>& body,
                       const SimulationOptions& options = {});

std::unique_ptr<Backend> make_sim_backend(Platform platform);

}  // namespace sp
