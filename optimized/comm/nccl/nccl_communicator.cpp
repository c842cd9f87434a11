// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/nccl/nccl_communicator.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "optimized/comm/envelope.hpp"
#include "optimized/comm/nccl/nccl_requests.hpp"
#include "optimized/comm/nccl/nccl_session.hpp"

namespace sp::SP_GPU {
namespace {

// The range of one posted step for profilers: "all_gather k step 3".
class StepRange {
 public:
  explicit StepRange(const Request& request) {
    const auto& messages = request.sends.empty() ? request.receives : request.sends;
    const Label label = messages.empty() ? Label{} : messages.front().label;
    std::array<char, 96> text{};
    fmt::format_to_n(text.data(), text.size() - 1, "{} {} step {}", name_of(request.pattern),
                     label.tensor, label.step);
    nvtxRangePushA(text.data());
  }
  ~StepRange() { nvtxRangePop(); }
  StepRange(const StepRange&) = delete;
  StepRange& operator=(const StepRange&) = delete;
};

class NcclOperation final : public Operation {
 public:
  NcclOperation(std::shared_ptr<NcclSession> session, Flight& flight)
      : session_(std::move(session)), flight_(flight) {}
  ~NcclOperation() override { session_->release(flight_); }

  void wait() override { session_->wait(flight_); }

 private:
  std::shared_ptr<NcclSession> session_;
  Flight& flight_;
};

class NcclCommunicator final : public Communicator {
 public:
  // Owns the NCCL communicator of the channel, which the session has adopted.
  NcclCommunicator(std::shared_ptr<NcclSession> session, NcclChannel channel,
                   std::shared_ptr<Traffic> traffic)
      : Communicator(channel.rank, channel.size, std::move(traffic)),
        session_(std::move(session)),
        channel_(std::move(channel)) {
    session_->open(channel_);
  }
  ~NcclCommunicator() override { session_->close(channel_); }

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    const StepRange range(request);
    Flight& flight = session_->begin(channel_, request);
    session_->call(channel_.comm, [&] { enqueue(channel_, request); });
    session_->launched(channel_, flight, request);
    return std::make_unique<NcclOperation>(session_, flight);
  }

  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    SP_CHECK(colour >= 0, "NCCL takes negative colours for none");
    NcclChannel part;
    session_->call(channel_.comm, [&] {
      check(ncclCommSplit(channel_.comm, colour, key, &part.comm, nullptr), "ncclCommSplit");
    });
    session_->adopt(part.comm);
    check(ncclCommUserRank(part.comm, &part.rank), "ncclCommUserRank");
    check(ncclCommCount(part.comm, &part.size), "ncclCommCount");
    part.name = fmt::format("split {} (colour {}) of {}", splits_++, colour, channel_.name);
    return std::make_unique<NcclCommunicator>(session_, std::move(part), shared_traffic());
  }

 private:
  std::shared_ptr<NcclSession> session_;
  NcclChannel channel_;
  int splits_ = 0;
};

}  // namespace

std::string describe(ncclResult_t status) {
  const std::string story = ncclGetLastError(nullptr);
  return ncclGetErrorString(status) + (story.empty() ? story : " (" + story + ")");
}

void check(ncclResult_t status, const char* what) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  throw Error(ErrorKind::kEnvironment, fmt::format("{}: {}", what, describe(status)));
}

void check_version(int version) {
  constexpr int kLeast = 22600;
  if (version >= kLeast) return;
  throw Error(ErrorKind::kEnvironment,
              fmt::format("NCCL {}.{}.{} is too old: before 2.26 nothing orders the operations of "
                          "several communicators, which may hang",
                          version / 10000, version % 10000 / 100, version % 100));
}

ncclUniqueId make_world_id() {
  int version = 0;
  check(ncclGetVersion(&version), "ncclGetVersion");
  check_version(version);
  ncclUniqueId id;
  check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  return id;
}

GpuWorld join_world(Gpu& gpu, const ncclUniqueId& id, int rank, int size,
                    std::chrono::milliseconds time_limit, std::shared_ptr<Traffic> traffic,
                    std::shared_ptr<const std::atomic<bool>> peers_failed) {
  NcclChannel world{nullptr, nullptr, rank, size, "the world"};
  auto session = std::make_shared<NcclSession>(gpu, time_limit, std::move(peers_failed));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check(ncclCommInitRankConfig(&world.comm, size, id, rank, &config), "ncclCommInitRankConfig");
  session->adopt(world.comm);
  auto comm = std::make_unique<NcclCommunicator>(session, std::move(world), std::move(traffic));
  return {std::move(comm), std::move(session)};
}

}  // namespace sp::SP_GPU
