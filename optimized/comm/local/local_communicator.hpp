// LocalCommunicator: one rank's end of a LocalWorld.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "optimized/comm/local/local_session.hpp"
#include "optimized/comm/thread/thread_communicator.hpp"

namespace sp::SP_GPU {

class LocalCommunicator final : public ThreadCommunicator {
 public:
  LocalCommunicator(std::shared_ptr<LocalSession> session, std::shared_ptr<ThreadBoard> board,
                    std::int64_t id, std::vector<int> members, int rank,
                    std::shared_ptr<Traffic> traffic, std::shared_ptr<Stages> stages);
  ~LocalCommunicator() override;

 protected:
  std::shared_ptr<ThreadTransfer> make_transfer(const Channel& channel, std::size_t parts) override;
  std::unique_ptr<Communicator> make_communicator(std::int64_t id, std::vector<int> members,
                                                  int rank) override;
  void settle(Transfer& transfer) override;
  Tensor staging(DType dtype, std::int64_t elements) override;
  void copy(const Tensor& target, const Tensor& source) override;
  void sum(const Tensor& target, const std::vector<Tensor>& sources) override;

 private:
  std::shared_ptr<LocalSession> session_;
  cudaStream_t stream_ = nullptr;  // of copies to this rank
};

}  // namespace sp::SP_GPU
