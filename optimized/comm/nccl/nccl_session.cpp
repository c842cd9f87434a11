// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/nccl/nccl_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "optimized/comm/peer_failure.hpp"

namespace sp::SP_GPU {
namespace {

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// for k step 3 (8192 bytes) from rank 2, until rank 0 receives k step 3 (8192 bytes)
std::string describe(const Flight& flight) {
  constexpr std::size_t kShown = 4;  // a collective of 64 ranks would fill the screen
  std::string words;
  std::size_t shown = 0;
  for (const bool sends : {false, true}) {  // what a rank lacks says more than what it offers
    for (const Flight::Part& part : flight.parts) {
      if (part.is_send != sends || shown == kShown) continue;
      words += (shown++ == 0 ? "" : ", ") + describe_wait(part.is_send, part.peer, part.envelope);
    }
  }
  if (flight.parts.size() > kShown)
    words += fmt::format(", and {} more", flight.parts.size() - kShown);
  return words.empty() ? "for nothing" : words;
}

}  // namespace

NcclSession::NcclSession(Gpu& gpu, std::chrono::milliseconds time_limit,
                         std::shared_ptr<const std::atomic<bool>> peers_failed)
    : gpu_(gpu),
      time_limit_(time_limit),
      peers_failed_(std::move(peers_failed)),
      exceptions_(std::uncaught_exceptions()) {
  gpu_.set_watcher([this] { watch(); });
}

NcclSession::~NcclSession() {
  gpu_.set_watcher({});
  abort();  // what was never opened to its end
  for (const auto& flight : flights_) {
    cudaEventDestroy(flight->ready);
    cudaEventDestroy(flight->done);
  }
  if (open_) timers_.put_back(*open_);
  for (const auto* timers : {&waits_, &transfers_})
    for (const Timer& timer : *timers) timers_.put_back(timer);
}

void NcclSession::adopt(ncclComm_t comm) {
  comms_.push_back(comm);
  finish(comm);
}

void NcclSession::open(NcclChannel& channel) {
  // Messages run ahead of kernels that wait for a processor: steps are bound by what arrives.
  int least = 0, greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  check(cudaStreamCreateWithPriority(&channel.stream, cudaStreamNonBlocking, greatest),
        "cudaStreamCreateWithPriority");
}

void NcclSession::close(const NcclChannel& channel) noexcept {
  try {
    while (!unwinding() && cudaStreamQuery(channel.stream) == cudaErrorNotReady) {
      watch();
      std::this_thread::yield();
    }
    if (!unwinding() && !aborted_) {
      call(channel.comm, [&] { check(ncclCommFinalize(channel.comm), "ncclCommFinalize"); });
    }
  } catch (const Error&) {  // has aborted everything
  }
  std::erase(comms_, channel.comm);
  if (!aborted_) (unwinding() ? ncclCommAbort : ncclCommDestroy)(channel.comm);
  if (channel.stream != nullptr) cudaStreamDestroy(channel.stream);
}

Flight& NcclSession::begin(const NcclChannel& channel, const Request& request) {
  throw_if_failed();
  retire();
  if (idle_.empty()) {
    flights_.push_back(std::make_unique<Flight>());
    Flight& made = *flights_.back();
    made.ready = make_event(cudaEventDisableTiming);
    made.done = make_event(cudaEventDisableTiming);
    idle_.push_back(&made);
  }
  Flight& flight = *idle_.back();
  idle_.pop_back();
  flight.pattern = request.pattern;
  flight.where = channel.name;
  flight.rank = channel.rank;
  flight.parts.clear();
  for (const auto* messages : {&request.sends, &request.receives}) {
    for (const Message& message : *messages) {
      flight.parts.push_back(
          {messages == &request.sends, message.peer, envelope_of(request.pattern, message)});
    }
  }
  record(flight.ready, gpu_.compute());
  check(cudaStreamWaitEvent(channel.stream, flight.ready, 0), "cudaStreamWaitEvent");
  if (measuring_ && !open_) open_ = start_timer(channel.stream);
  return flight;
}

void NcclSession::launched(const NcclChannel& channel, Flight& flight, const Request& request) {
  if (open_) {
    transfers_.push_back(*std::exchange(open_, std::nullopt));
    record(transfers_.back().second, channel.stream);
  }
  record(flight.done, channel.stream);
  for (const auto* messages : {&request.sends, &request.receives}) {
    for (const Message& message : *messages) flight.kept.push_back(message.data);
  }
  flight.since.reset();
  flight.held = true;
  flight.ended = false;
  in_flight_.push_back(&flight);
}

void NcclSession::order_after(Flight& flight) {
  check(cudaStreamWaitEvent(gpu_.compute(), flight.done, 0), "cudaStreamWaitEvent");
}

void NcclSession::wait(Flight& flight) {
  throw_if_failed();
  if (!measuring_) {
    order_after(flight);
  } else {
    waits_.push_back(start_timer(gpu_.compute()));
    order_after(flight);
    record(waits_.back().second, gpu_.compute());
  }
  flight.kept.clear();
}

void NcclSession::release(Flight& flight) noexcept {
  if (!flight.kept.empty()) {
    cudaStreamWaitEvent(gpu_.compute(), flight.done, 0);
    flight.kept.clear();
  }
  flight.held = false;
  if (flight.ended) idle_.push_back(&flight);
}

void NcclSession::retire() {
  while (!in_flight_.empty()) {  // up to the oldest that has not ended: one query per post
    Flight* flight = in_flight_.front();
    if (cudaEventQuery(flight->done) == cudaErrorNotReady) return;
    flight->ended = true;
    if (!flight->held) idle_.push_back(flight);
    in_flight_.pop_front();
  }
}

void NcclSession::watch() {
  constexpr std::chrono::milliseconds kPeriod{1};
  throw_if_failed();
  const auto now = Clock::now();
  if (now - last_watch_ < kPeriod) return;
  last_watch_ = now;
  if (peers_failed()) fail(Blame::kAnother, "another rank has failed");
  for (const ncclComm_t comm : comms_) {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError");
    if (state == ncclSuccess || state == ncclInProgress) continue;
    fail_as(state);
  }
  retire();
  if (in_flight_.empty()) return;
  Flight& oldest = *in_flight_.front();
  if (!oldest.since) {  // its time begins when nothing of its own rank is before it any more
    if (cudaEventQuery(oldest.ready) != cudaErrorNotReady) oldest.since = now;
  } else if (now - *oldest.since > time_limit_) {
    fail(Blame::kThisRank, fmt::format("the time limit of {} s has passed", seconds(time_limit_)));
  }
}

void NcclSession::fail(Blame blame, const std::string& why) {
  const std::string text = why + describe_flights();
  failure_ = blame == Blame::kAnother
                 ? std::make_exception_ptr(PeerFailure(text))
                 : std::make_exception_ptr(Error(ErrorKind::kEnvironment, text));
  abort();
  std::rethrow_exception(failure_);
}

void NcclSession::fail_as(ncclResult_t state) {
  fail(state == ncclRemoteError ? Blame::kAnother : Blame::kThisRank, "NCCL: " + describe(state));
}

void NcclSession::throw_if_failed() const {
  if (failure_) std::rethrow_exception(failure_);
}

// Ends what is in flight, so that the streams run dry.
void NcclSession::abort() {
  if (aborted_) return;
  aborted_ = true;
  for (const ncclComm_t comm : comms_) ncclCommAbort(comm);
  comms_.clear();
}

std::string NcclSession::describe_flights() const {
  std::string lines;
  const auto now = Clock::now();
  for (const Flight* flight : in_flight_) {
    const std::string for_how_long =
        flight->since ? fmt::format("waits since {:.1f} s", seconds(now - *flight->since))
                      : "is to wait";
    lines += fmt::format("\n  rank {} of {} {} {} ({})", flight->rank, flight->where, for_how_long,
                         describe(*flight), name_of(flight->pattern));
  }
  return lines.empty() ? "; nothing is in flight" : lines;
}

NcclSession::Timer NcclSession::start_timer(cudaStream_t stream) {
  const Timer timer = timers_.take();
  record(timer.first, stream);
  return timer;
}

NcclSession::Cost NcclSession::take() {
  gpu_.synchronize();
  // An operation that nobody waited for may still be under way.
  for (const Timer& transfer : transfers_)
    check(cudaEventSynchronize(transfer.second), "cudaEventSynchronize");
  return {timers_.seconds_of(waits_), timers_.seconds_of(transfers_)};
}

// Joining and splitting meet everybody, and the first message to a peer connects to it.
void NcclSession::finish(ncclComm_t comm) {
  const auto begin = Clock::now();
  for (Patience patience;; patience.pause()) {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError");
    if (state == ncclSuccess) return;
    if (peers_failed()) fail(Blame::kAnother, "another rank has failed");
    if (state != ncclInProgress) fail_as(state);
    if (Clock::now() - begin > time_limit_) {
      fail(Blame::kThisRank, fmt::format("the time limit of {} s has passed in a call of NCCL",
                                         seconds(time_limit_)));
    }
  }
}

}  // namespace sp::SP_GPU
