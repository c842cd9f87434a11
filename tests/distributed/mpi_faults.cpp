// A ring between processes in which rank 1 does what the argument says: the victim of
// mpi_faults.sh.
//
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "optimized/comm/mpi/mpi_session.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

constexpr std::chrono::milliseconds kLimit{1000};
constexpr int kCulprit = 1;
constexpr int kStep = 3;  // at which it happens

void misbehave(const std::string& fault, std::int64_t& rows, Label& label) {
  if (fault == "stop") std::raise(SIGSTOP);
  if (fault == "kill") std::raise(SIGKILL);
  if (fault == "throw") throw Error(ErrorKind::kUsage, "rank 1 does not want to");
  if (fault == "size") rows = 50'000;  // longer than the receiver's buffer
  if (fault == "label") label = {"v", 9};
}

void run(const std::string& fault, Communicator& comm) {
  CpuMemory memory;
  const int P = comm.size();
  for (int step = 0; step < 2 * P; ++step) {
    std::int64_t rows = 100;
    Label label{"k", step};
    if (comm.rank() == kCulprit && step == kStep) {
      if (fault == "leave") return;
      misbehave(fault, rows, label);
    }
    const Tensor arriving = test::blank(memory, DType::kF32, 100);
    comm.exchange({{(comm.rank() + 1) % P, test::written_by(memory, DType::kF32, rows, 0), label}},
                  {{(comm.rank() + P - 1) % P, arriving, {"k", step}}})
        .wait();
  }
}

}  // namespace
}  // namespace sp

int main(int argc, char** argv) {
  sp::MpiSession session(&argc, &argv);
  try {
    const auto comm =
        session.communicator(std::make_shared<sp::Traffic>(), {.time_limit = sp::kLimit});
    sp::run(argc > 1 ? argv[1] : "", *comm);
  } catch (const sp::Error& error) {
    fmt::print(stderr, "rank {} ends: {}\n", session.rank(), error.what());
    sp::mpi_abort(3);
  }
}
