// What the faults of a rig make of one rank's communicator and kernels. They sit outermost: they
// change what the algorithm asks for, and all below must notice.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "harness/run/backend.hpp"

namespace sp {

class Injected {
 public:
  // `spare`: memory for the faults' own tensors, on no ledger. All must outlive this.
  Injected(const Rig& rig, Communicator& comm, Kernels& kernels, Memory& spare)
      : faulty_comm_(rig.wrap_communicator ? rig.wrap_communicator(comm) : nullptr),
        faulty_kernels_(rig.wrap_kernels ? rig.wrap_kernels(kernels, spare) : nullptr),
        comm_(faulty_comm_ ? *faulty_comm_ : comm),
        kernels_(faulty_kernels_ ? *faulty_kernels_ : kernels) {}

  Communicator& comm() { return comm_; }
  Kernels& kernels() { return kernels_; }

 private:
  std::unique_ptr<Communicator> faulty_comm_;
  std::unique_ptr<Kernels> faulty_kernels_;
  Communicator& comm_;
  Kernels& kernels_;
};

}  // namespace sp
