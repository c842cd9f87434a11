// MpiCommunicator: one process of an MPI job as a rank.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "optimized/comm/host_communicator.hpp"
#include "optimized/comm/mpi/mpi_engine.hpp"
#include "optimized/comm/mpi/mpi_session.hpp"

namespace sp {

class MpiCommunicator final : public HostCommunicator {
 public:
  // Owns the lanes. members: the job's ranks in the order of this communicator's.
  MpiCommunicator(std::shared_ptr<MpiEngine> engine, const MpiLanes& lanes,
                  std::vector<int> members, int rank, const MpiOptions& options,
                  std::shared_ptr<Traffic> traffic, std::shared_ptr<Stages> stages);
  ~MpiCommunicator() override;

 protected:
  std::shared_ptr<Transfer> post_messages(const Channel& channel, std::vector<Message> sends,
                                          std::vector<Message> receives) override;
  void wait_for(Transfer& transfer) override;
  std::unique_ptr<Communicator> form_group(const Group& group) override;

 private:
  std::shared_ptr<MpiEngine> engine_;
  MpiLanes lanes_;
  std::vector<int> members_;
  MpiOptions options_;
  std::int64_t sent_ = 0;  // messages; gives payloads their tags
};

}  // namespace sp
