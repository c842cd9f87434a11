// NcclSession: what all communicators of one rank share: the GPU, the limit, what is in flight.
//
// Used by the thread of its rank.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "optimized/comm/envelope.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"
#include "optimized/kernels/cuda/timers.hpp"

namespace sp::SP_GPU {

using Clock = std::chrono::steady_clock;

// A communicator and the stream of its operations.
struct NcclChannel {
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  int rank = 0, size = 1;
  std::string name;  // for messages
};

// One posted operation. Flights and their events are used again when they have ended.
struct Flight {
  struct Part {
    bool is_send;
    int peer;
    Envelope envelope;
  };
  cudaEvent_t ready = nullptr;  // on the compute stream: the operation may begin
  cudaEvent_t done = nullptr;   // on the communication stream
  Pattern pattern = Pattern::kExchange;
  std::vector<Part> parts;
  std::vector<Tensor> kept;  // alive until the compute stream is ordered after the operation
  std::string where;         // the channel's name
  int rank = 0;
  std::optional<Clock::time_point> since;  // first seen to hold up the rank
  bool held = false;                       // somebody may still wait for it
  bool ended = false;
};

class NcclSession final : public CommunicationMeter {
 public:
  NcclSession(Gpu& gpu, std::chrono::milliseconds time_limit,
              std::shared_ptr<const std::atomic<bool>> peers_failed);
  ~NcclSession() override;
  NcclSession(const NcclSession&) = delete;
  NcclSession& operator=(const NcclSession&) = delete;

  // From here on the communicator's errors are looked for, and it is aborted with all others. Returns
  // when it may be used.
  void adopt(ncclComm_t comm);
  // Makes the channel's stream.
  void open(NcclChannel& channel);
  // Returns when its operations have ended; after a failure it is aborted instead.
  void close(const NcclChannel& channel) noexcept;

  // Orders the channel's stream after the compute stream, and what follows on it up to `launched`
  // into the flight.
  Flight& begin(const NcclChannel& channel, const Request& request);
  void launched(const NcclChannel& channel, Flight& flight, const Request& request);
  // Orders the compute stream after the flight. Throws if the rank has failed.
  void wait(Flight& flight);
  // Nobody will wait any more; orders the release of its tensors after it.
  void release(Flight& flight) noexcept;

  // Throws PeerFailure if another rank has failed, Error if time is up.
  void watch();

  void measure(bool enabled) override { measuring_ = enabled; }
  Cost take() override;

  // Calls NCCL and returns when it is done with that. Throws what the call throws, a PeerFailure if
  // another rank has failed, Error if it took too long.
  template <class F>
  void call(ncclComm_t comm, F&& f) {
    throw_if_failed();
    try {
      f();
    } catch (const Error& error) {
      if (peers_failed())
        fail(Blame::kAnother, std::string("another rank has failed; ") + error.what());
      throw;
    }
    finish(comm);
  }

 private:
  using Timer = Timers::Timer;

  enum class Blame { kThisRank, kAnother };
  [[noreturn]] void fail(Blame blame, const std::string& why);
  [[noreturn]] void fail_as(ncclResult_t state);
  void throw_if_failed() const;
  bool peers_failed() const { return peers_failed_ != nullptr && peers_failed_->load(); }
  bool unwinding() const { return std::uncaught_exceptions() > exceptions_; }
  void order_after(Flight& flight);
  Timer start_timer(cudaStream_t stream);
  void retire();
  void abort();
  void finish(ncclComm_t comm);
  std::string describe_flights() const;

  Gpu& gpu_;
  std::chrono::milliseconds time_limit_;
  std::shared_ptr<const std::atomic<bool>> peers_failed_;
  int exceptions_;
  std::exception_ptr failure_;
  Clock::time_point last_watch_{};

  std::vector<std::unique_ptr<Flight>> flights_;  // all that were ever needed at once
  std::vector<Flight*> idle_;
  std::deque<Flight*> in_flight_;  // in the order of their posts

  bool measuring_ = false;
  Timers timers_;
  std::optional<Timer> open_;     // of the operation that is being launched
  std::vector<Timer> waits_;      // of the compute stream
  std::vector<Timer> transfers_;  // of operations

  std::vector<ncclComm_t> comms_;
  bool aborted_ = false;
};

}  // namespace sp::SP_GPU
