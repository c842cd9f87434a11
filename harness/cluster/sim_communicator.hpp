// SimCommunicator: one rank's end of a communicator whose messages are flows of a simulation.
//
// Start     An operation starts when the stream of its communicator has done the ones before, and
//           CommModel::operation_s later. A message flows once both sides have started and its
//           latency has passed; a collective once all ranks have started.
// Matching  At the post: a mismatch is an error of whoever posts second.
// Data      What there is is copied at the post and delivered at the end; phantom tensors have none.
// Splitting Waits for all ranks and takes no time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "harness/cluster/sim_cluster.hpp"
#include "optimized/comm/communicator.hpp"

namespace sp {

struct SimGroup;
struct SimOperation;
struct SimStream;

class SimCommunicator final : public Communicator {
 public:
  // Of all ranks. Made by the rank's task.
  static std::unique_ptr<Communicator> world(SimCluster& cluster, int rank,
                                             std::shared_ptr<SimGroup> group);
  static std::shared_ptr<SimGroup> world_group(SimCluster& cluster);

 protected:
  std::unique_ptr<Operation> start(Request request) override;
  std::unique_ptr<Communicator> start_split(int colour, int key) override;

 private:
  class Handle;

  SimCommunicator(std::shared_ptr<SimGroup> group, int rank, std::shared_ptr<Traffic> traffic);

  void post_message(SimOperation& operation, const Message& message, bool is_send);
  void join(SimOperation& operation);

  std::shared_ptr<SimGroup> group_;
  std::shared_ptr<SimStream> stream_;
  std::int64_t collectives_ = 0, splits_ = 0;  // so far
};

}  // namespace sp
