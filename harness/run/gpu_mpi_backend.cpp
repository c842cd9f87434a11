// SPDX-License-Identifier: Apache-2.0
#include "harness/run/gpu_mpi_backend.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <vector>

#include "harness/run/gpu_machine.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"

namespace sp::SP_GPU {
namespace {

void check_mpi(int status, const char* what) {
  if (status != MPI_SUCCESS) throw Error(ErrorKind::kEnvironment, fmt::format("{} failed", what));
}

// Where a GPU sits in its node, whatever number it has in a process.
std::array<int, 3> place_of(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return {properties.pciDomainID, properties.pciBusID, properties.pciDeviceID};
}

// The device with this process' number on its node; the only one where the launcher shows every
// process a GPU of its own. Collective: two processes on one GPU are refused on both.
int device_of_this_process() {
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  int rank = 0, size = 0;
  check_mpi(MPI_Comm_rank(node, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &size), "MPI_Comm_size");
  const int devices = device_count();
  const int device = devices == 1 ? 0 : rank;
  constexpr std::array<int, 3> kNone{-1, -1, -1};
  const std::array<int, 3> mine = device < devices ? place_of(device) : kNone;
  std::vector<std::array<int, 3>> all(static_cast<std::size_t>(size));
  check_mpi(MPI_Allgather(mine.data(), 3, MPI_INT, all.data(), 3, MPI_INT, node), "MPI_Allgather");
  MPI_Comm_free(&node);
  if (devices == 0) refuse_without_gpu();
  if (mine == kNone) {
    throw Error(ErrorKind::kEnvironment,
                fmt::format("process {} of this node finds no GPU: there are {}", rank, devices));
  }
  if (std::ranges::count(all, mine) > 1) {
    throw Error(ErrorKind::kEnvironment,
                fmt::format("process {} of this node shares its GPU: {} processes, one GPU each",
                            rank, size));
  }
  return device;
}

// Collective over the job.
GpuWorld join_job(const MpiSession& session, Gpu& gpu, std::chrono::milliseconds time_limit) {
  ncclUniqueId id{};
  if (session.rank() == 0) id = make_world_id();
  check_mpi(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast of NCCL's id");
  return join_world(gpu, id, session.rank(), session.size(), time_limit,
                    std::make_shared<Traffic>());
}

class GpuMpiBackend final : public Backend {
 public:
  GpuMpiBackend(MpiSession& session, std::chrono::milliseconds time_limit)
      : gpu_(device_of_this_process()), job_(join_job(session, gpu_, time_limit)) {}

  const char* name() const override { return "cuda"; }
  int most_ranks() const override { return job_.comm->size(); }
  Operands operands() const override { return Operands::kStorage; }
  bool knows_f64() const override { return false; }
  void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) override {
    const bool takes_part = job_.comm->rank() < ranks;
    const Ranks others{ranks, 1, job_.comm->size() - ranks};
    Communicator& world =
        job_.comm->group(fmt::format("first {}", ranks), takes_part ? Ranks{0, 1, ranks} : others);
    if (takes_part) run_on_gpu(gpu_, world, *job_.meter, rig, body);
  }
  bool survives_failure() const override { return false; }
  bool leads() const override { return job_.comm->rank() == 0; }
  bool agree(bool leaders_verdict) override {  // host to host: no GPU is needed for a bit
    int verdict = leaders_verdict ? 1 : 0;
    check_mpi(MPI_Bcast(&verdict, 1, MPI_INT, 0, MPI_COMM_WORLD), "MPI_Bcast of the verdict");
    return verdict == 1;
  }

 private:
  Gpu gpu_;
  GpuWorld job_;
};

}  // namespace

std::unique_ptr<Backend> make_mpi_backend(MpiSession& session,
                                          std::chrono::milliseconds time_limit) {
  return std::make_unique<GpuMpiBackend>(session, time_limit);
}

}  // namespace sp::SP_GPU
