// SPDX-License-Identifier: Apache-2.0
#include "experiments/backends.hpp"

#include <fmt/format.h>

#include "reference/problem/error.hpp"
#ifdef SP_HAVE_MPI
#include "harness/run/mpi_backend.hpp"
#include "optimized/comm/mpi/mpi_session.hpp"
#endif

namespace sp {
namespace {

#ifdef SP_HAVE_MPI
constexpr bool kHaveMpi = true;
#else
constexpr bool kHaveMpi = false;
#endif

}  // namespace

const std::vector<BackendInfo>& backends() {
  static const std::vector<BackendInfo> all{
      {"thread", true, "ranks are threads of one process"},
      {"mpi", kHaveMpi, "one rank per process, started by mpirun"}};
  return all;
}

std::unique_ptr<Backend> make_backend(const std::string& name, std::chrono::milliseconds time_limit,
                                      [[maybe_unused]] Command& command) {
  if (name == "thread") return make_thread_backend(time_limit);
  if (name == "mpi") {
#ifdef SP_HAVE_MPI
    const auto session = std::make_shared<MpiSession>(nullptr, nullptr);
    command.session = session;
    command.abort = mpi_abort;
    return make_mpi_backend(*session, time_limit);
#else
    throw Error(ErrorKind::kEnvironment,
                "this build has no MPI; install libopenmpi-dev and openmpi-bin and rebuild");
#endif
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown back-end '{}'; allowed: thread, mpi", name));
}

}  // namespace sp
