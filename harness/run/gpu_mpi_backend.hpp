// GPUs of many processes: one rank per process, on the GPU of its number on the node; MPI starts
// the processes and makes NCCL's ranks known to each other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/run/backend.hpp"
#include "optimized/comm/mpi/mpi_session.hpp"

namespace sp::cuda {

// Worlds smaller than the job leave the other processes waiting for the verdict. Collective over
// the job; the session must outlive the back-end.
std::unique_ptr<Backend> make_mpi_backend(MpiSession& session,
                                          std::chrono::milliseconds time_limit);

}  // namespace sp::cuda
