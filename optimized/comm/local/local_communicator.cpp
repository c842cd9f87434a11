// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/local/local_communicator.hpp"

#include <utility>

#include "optimized/comm/local/local_transfer.hpp"
#include "optimized/kernels/cuda/rank_sum.hpp"

namespace sp::SP_GPU {

LocalCommunicator::LocalCommunicator(std::shared_ptr<LocalSession> session,
                                     std::shared_ptr<ThreadBoard> board, std::int64_t id,
                                     std::vector<int> members, int rank,
                                     std::shared_ptr<Traffic> traffic,
                                     std::shared_ptr<Stages> stages)
    : ThreadCommunicator(std::move(board), id, std::move(members), rank, std::move(traffic),
                         std::move(stages)),
      session_(std::move(session)) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

LocalCommunicator::~LocalCommunicator() { cudaStreamDestroy(stream_); }

std::shared_ptr<ThreadTransfer> LocalCommunicator::make_transfer(const Channel& channel,
                                                                 std::size_t parts) {
  if (channel.of_hosts) return ThreadCommunicator::make_transfer(channel, parts);
  return std::make_shared<LocalTransfer>(session_, stream_, board(), id(), channel,
                                         world_rank(rank()), parts);
}

std::unique_ptr<Communicator> LocalCommunicator::make_communicator(std::int64_t id,
                                                                   std::vector<int> members,
                                                                   int rank) {
  return std::make_unique<LocalCommunicator>(session_, board(), id, std::move(members), rank,
                                             shared_traffic(), stages());
}

void LocalCommunicator::settle(Transfer& transfer) {
  if (auto* local = dynamic_cast<LocalTransfer*>(&transfer)) local->settle();
}

Tensor LocalCommunicator::staging(DType dtype, std::int64_t elements) {
  return device_buffer(session_->gpu(), dtype, elements, "received summand");
}

void LocalCommunicator::copy(const Tensor& target, const Tensor& source) {
  if (target.bytes() == 0 || target.data() == source.data()) return;
  check(cudaMemcpyAsync(target.data(), source.data(), static_cast<std::size_t>(target.bytes()),
                        cudaMemcpyDeviceToDevice, session_->gpu().compute()),
        "cudaMemcpyAsync of a rank's own part");
}

void LocalCommunicator::sum(const Tensor& target, const std::vector<Tensor>& sources) {
  sum_in_order(session_->gpu(), target, sources);
}

}  // namespace sp::SP_GPU
