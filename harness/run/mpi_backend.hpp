// The MPI back-end: one rank per process, all processes run the same program.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/run/backend.hpp"
#include "optimized/comm/mpi/mpi_session.hpp"

namespace sp {

// Worlds smaller than the job are split off; the remaining processes wait for the verdict.
// Collective over the job; the session must outlive the back-end.
std::unique_ptr<Backend> make_mpi_backend(MpiSession& session,
                                          std::chrono::milliseconds time_limit);

}  // namespace sp
