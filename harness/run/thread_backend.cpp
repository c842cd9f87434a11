// The thread back-end: ranks are threads of this process.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/backend.hpp"
#include "optimized/comm/thread/thread_world.hpp"

namespace sp {
namespace {

class ThreadBackend final : public Backend {
 public:
  explicit ThreadBackend(std::chrono::milliseconds time_limit) : time_limit_(time_limit) {}
  const char* name() const override { return "thread"; }
  int most_ranks() const override { return kMostThreadRanks; }
  void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) override {
    run_ranks(ranks, time_limit_, [&](Communicator& comm) { run_on_cpu(comm, rig, body); });
  }
  bool survives_failure() const override { return true; }
  bool can_be_watched() const override { return true; }
  bool leads() const override { return true; }
  bool agree(bool leaders_verdict) override { return leaders_verdict; }

 private:
  std::chrono::milliseconds time_limit_;
};

}  // namespace

std::unique_ptr<Backend> make_thread_backend(std::chrono::milliseconds time_limit) {
  return std::make_unique<ThreadBackend>(time_limit);
}

}  // namespace sp
