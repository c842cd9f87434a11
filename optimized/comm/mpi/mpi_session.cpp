// Start and end of MPI.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/mpi/mpi_session.hpp"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <utility>
#include <vector>

#include "optimized/comm/mpi/mpi_communicator.hpp"
#include "optimized/comm/mpi/mpi_engine.hpp"

namespace sp {

MpiSession::MpiSession(int* argc, char*** argv) : exceptions_(std::uncaught_exceptions()) {
  int provided = 0;
  check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
  engine_ = std::make_shared<MpiEngine>();
}

MpiSession::~MpiSession() {
  // MPI_Finalize waits for all ranks, which may be waiting for this one.
  if (std::uncaught_exceptions() > exceptions_) mpi_abort(3);
  engine_.reset();
  MPI_Finalize();
}

std::unique_ptr<Communicator> MpiSession::communicator(std::shared_ptr<Traffic> traffic,
                                                       const MpiOptions& options) {
  std::vector<int> members(static_cast<std::size_t>(size_));
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<MpiCommunicator>(engine_, MpiLanes::duplicate(MPI_COMM_WORLD),
                                           std::move(members), rank_, options, std::move(traffic),
                                           std::make_shared<Stages>());
}

void mpi_abort(int exit_code) {
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace sp
