// One rank's machine on the CPU, with the rig of a test around it.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/backend.hpp"
#include "optimized/comm/chaos.hpp"
#include "optimized/comm/checked.hpp"
#include "optimized/kernels/cpu/cpu_kernels.hpp"

namespace sp {

void run_on_cpu(Communicator& world, const Rig& rig, const std::function<void(Machine&)>& body) {
  CpuMemory memory(rig.fence), spare;  // first: outlive every tensor
  CpuKernels cpu_kernels;
  // Injected faults sit outermost: they change what the algorithm asks for, and all below must
  // notice.
  std::unique_ptr<Communicator> chaos, faulty;
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
  if (rig.wrap_communicator) {
    faulty = rig.wrap_communicator(*comm);
    comm = faulty.get();
  }
  std::unique_ptr<Kernels> faulty_kernels;
  Kernels* kernels = &cpu_kernels;
  if (rig.wrap_kernels) {
    faulty_kernels = rig.wrap_kernels(cpu_kernels, spare);
    kernels = faulty_kernels.get();
  }
  if (checked != nullptr) kernels->observe(checked.get());
  Machine machine{*comm, *kernels, memory};
  body(machine);
  if (checked != nullptr) checked->finish();
  memory.check_fences();
}

}  // namespace sp
