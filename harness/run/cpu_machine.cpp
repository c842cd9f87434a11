// One rank's machine on the CPU, with the rig of a test around it.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/backend.hpp"
#include "harness/run/injected.hpp"
#include "optimized/comm/chaos.hpp"
#include "optimized/comm/checked.hpp"
#include "optimized/kernels/cpu/cpu_kernels.hpp"

namespace sp {
namespace {

// Kernels take one observer.
class Both final : public KernelObserver {
 public:
  Both(KernelObserver& first, KernelObserver& second) : first_(first), second_(second) {}
  void before(const Charge& charge, std::span<const Tensor> reads,
              std::span<const Tensor> writes) override {
    first_.before(charge, reads, writes);
    second_.before(charge, reads, writes);
  }

 private:
  KernelObserver& first_;
  KernelObserver& second_;
};

}  // namespace

void run_on_cpu(Communicator& world, const Rig& rig, const std::function<void(Machine&)>& body,
                KernelObserver* clock) {
  CpuMemory memory(rig.fence), spare;  // first: outlive every tensor
  CpuKernels cpu_kernels;
  std::unique_ptr<Communicator> chaos;
  std::unique_ptr<CheckedCommunicator> checked;
  Communicator* comm = &world;
  if (rig.chaos) {
    const auto rank = static_cast<std::uint64_t>(world.rank());
    chaos = std::make_unique<ChaosCommunicator>(*comm, *rig.chaos * 0x9e3779b97f4a7c15u + rank);
    comm = chaos.get();
  }
  if (rig.checked) {
    checked = std::make_unique<CheckedCommunicator>(*comm);
    comm = checked.get();
  }
  Injected injected(rig, *comm, cpu_kernels, spare);
  std::optional<Both> both;
  if (checked != nullptr && clock != nullptr) both.emplace(*checked, *clock);
  injected.kernels().observe(both ? &*both : checked != nullptr ? checked.get() : clock);
  Machine machine{injected.comm(), injected.kernels(), memory};
  body(machine);
  if (checked != nullptr) {
    checked->finish();
    checked->check_orders();
  }
  memory.check_fences();
}

}  // namespace sp
