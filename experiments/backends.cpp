// SPDX-License-Identifier: Apache-2.0
#include "experiments/backends.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "experiments/emulated_backend.hpp"
#include "harness/cluster/simulation.hpp"
#include "reference/problem/error.hpp"
#ifdef SP_HAVE_CUDA_MPI
#include "harness/run/gpu_mpi_backend.hpp"
#endif
#ifdef SP_HAVE_MPI
#include "harness/run/mpi_backend.hpp"
#include "optimized/comm/mpi/mpi_session.hpp"
#endif

namespace sp {
namespace {

#ifdef SP_HAVE_MPI
constexpr const char* kNoMpi = "";
#else
constexpr const char* kNoMpi =
    "no MPI was found: sudo apt-get install libopenmpi-dev openmpi-bin, then ./seqpar list builds "
    "it";
#endif

#ifdef SP_HAVE_CUDA
constexpr const char* kNoCuda = "";
#else
constexpr const char* kNoCuda = SP_CUDA_ABSENCE;
#endif

// Whether mpirun or srun started this process as one of several. A shell of one SLURM task has a
// rank too.
[[maybe_unused]] bool is_one_of_several() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  return std::getenv("SLURM_PROCID") != nullptr && (tasks == nullptr || std::string(tasks) != "1");
}

Transport parse_transport(const std::string& name, const std::string& backend) {
  if (name.empty()) return Transport::kAuto;
  if (backend != "cuda" && backend != "emulated") {
    throw Error(
        ErrorKind::kUsage,
        fmt::format("--transport says how GPUs exchange messages, and back-end {} has none; "
                    "allowed with it: --backend cuda, emulated",
                    backend));
  }
  return name == "local" ? Transport::kLocal : Transport::kNccl;
}

std::unique_ptr<Backend> make_cuda_backend([[maybe_unused]] std::chrono::milliseconds time_limit,
                                           [[maybe_unused]] Transport transport,
                                           [[maybe_unused]] Command& command) {
#ifdef SP_HAVE_CUDA
#ifdef SP_HAVE_CUDA_MPI
  if (is_one_of_several()) {
    if (transport == Transport::kLocal) {
      throw Error(ErrorKind::kUsage,
                  "--transport local joins ranks of one process; under mpirun every rank is one: "
                  "allowed: nccl");
    }
    const auto session = std::make_shared<MpiSession>(nullptr, nullptr);
    command.session = session;
    command.abort = mpi_abort;
    return cuda::make_mpi_backend(*session, time_limit);
  }
#endif
  return cuda::make_backend(time_limit, transport);
#else
  throw Error(
      ErrorKind::kEnvironment,
      fmt::format("back-end cuda is not built: {}; --backend emulated runs the same kernels "
                  "on the CPU",
                  kNoCuda));
#endif
}

}  // namespace

const std::vector<BackendInfo>& backends() {
  static const std::vector<BackendInfo> all{
      {"thread", "ranks are threads of one process", ""},
      {"mpi", "one rank per process, started by mpirun", kNoMpi},
      {"cuda", "ranks are threads with a GPU each or in common, or processes under mpirun",
       kNoCuda},
      {"emulated", "the CUDA and NCCL half, executed and checked on the CPU", emulator_absence()},
      {"sim", "ranks of a simulated cluster, which compute on the CPU", ""},
      {"ledger", "of verify: threads whose kernels keep books of all pairs, without rounding", ""}};
  return all;
}

std::unique_ptr<Backend> make_backend(const std::string& name, std::chrono::milliseconds time_limit,
                                      [[maybe_unused]] Command& command,
                                      const std::string& platform, const std::string& transport) {
  const Transport over = parse_transport(transport, name);
  if (!platform.empty() && name != "sim") {
    throw Error(ErrorKind::kUsage,
                fmt::format("--platform describes a simulated cluster, and back-end {} is none; "
                            "allowed with it: --backend sim",
                            name));
  }
  if (name == "thread") return make_thread_backend(time_limit);
  if (name == "mpi") {
#ifdef SP_HAVE_MPI
    const auto session = std::make_shared<MpiSession>(nullptr, nullptr);
    command.session = session;
    command.abort = mpi_abort;
    return make_mpi_backend(*session, time_limit);
#else
    throw Error(ErrorKind::kEnvironment, fmt::format("back-end mpi is not built: {}", kNoMpi));
#endif
  }
  if (name == "cuda") return make_cuda_backend(time_limit, over, command);
  if (name == "emulated") return make_emulated_backend(time_limit, over, command.words);
  if (name == "sim") {
    return make_sim_backend(find_platform(platform.empty() ? kDefaultPlatform : platform));
  }
  if (name == "ledger") {
    throw Error(ErrorKind::kUsage,
                "back-end ledger proves and computes no numbers; allowed: seqpar verify --backend "
                "ledger");
  }
  throw Error(
      ErrorKind::kUsage,
      fmt::format("unknown back-end '{}'; allowed: thread, mpi, cuda, emulated, sim", name));
}

Environment capture_environment_with_gpus() {
  Environment environment = capture_environment();
#ifdef SP_HAVE_CUDA
  for (auto& entry : cuda::describe_gpus()) environment.entries.push_back(std::move(entry));
#endif
  return environment;
}

}  // namespace sp
