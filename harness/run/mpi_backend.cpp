// SPDX-License-Identifier: Apache-2.0
#include "harness/run/mpi_backend.hpp"

#include <fmt/format.h>

namespace sp {
namespace {

class MpiBackend final : public Backend {
 public:
  MpiBackend(MpiSession& session, std::chrono::milliseconds time_limit)
      : job_(session.communicator(std::make_shared<Traffic>(), {.time_limit = time_limit})) {}

  const char* name() const override { return "mpi"; }
  int most_ranks() const override { return job_->size(); }
  void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) override {
    const bool takes_part = job_->rank() < ranks;
    const Ranks others{ranks, 1, job_->size() - ranks};
    Communicator& world =
        job_->group(fmt::format("first {}", ranks), takes_part ? Ranks{0, 1, ranks} : others);
    if (takes_part) run_on_cpu(world, rig, body);
  }
  bool survives_failure() const override { return false; }
  bool leads() const override { return job_->rank() == 0; }
  bool agree(bool leaders_verdict) override {
    const Tensor verdict = memory_.allocate(DType::kF32, {1, 1, 1, 1}, "verdict");
    *verdict.as<float>() = leaders_verdict ? 1 : 0;
    job_->broadcast(verdict, 0, {"verdict", 0}).wait();
    return *verdict.as<float>() == 1;
  }

 private:
  CpuMemory memory_;
  std::unique_ptr<Communicator> job_;
};

}  // namespace

std::unique_ptr<Backend> make_mpi_backend(MpiSession& session,
                                          std::chrono::milliseconds time_limit) {
  return std::make_unique<MpiBackend>(session, time_limit);
}

}  // namespace sp
