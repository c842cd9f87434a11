// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/nccl/nccl_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "optimized/comm/peer_failure.hpp"

namespace sp::SP_GPU {
namespace {

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

cudaEvent_t make_event(unsigned flags) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  return event;
}

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
      exceptions_(std::uncaught_exceptions()),
      watchdog_([this](const std::stop_token& stop) { watch_calls(stop); }) {
  gpu_.set_watcher([this] { watch(); });
}

NcclSession::~NcclSession() {
  gpu_.set_watcher({});
  {
    const std::lock_guard lock(mutex_);
    abort();  // what was never opened to its end
  }
  for (const auto& flight : flights_) {
    cudaEventDestroy(flight->ready);
    cudaEventDestroy(flight->done);
  }
  if (open_) idle_timers_.push_back(*open_);
  for (const auto* timers : {&waits_, &transfers_, &idle_timers_}) {
    for (const auto& [before, after] : *timers) {
      cudaEventDestroy(before);
      cudaEventDestroy(after);
    }
  }
}

void NcclSession::open(NcclChannel& channel) {
  {
    const std::lock_guard lock(mutex_);
    comms_.push_back(channel.comm);
  }
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
  } catch (const Error&) {  // has aborted everything
  }
  {
    const std::lock_guard lock(mutex_);
    std::erase(comms_, channel.comm);
    if (!aborted_) (unwinding() ? ncclCommAbort : ncclCommDestroy)(channel.comm);
  }
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
  check(cudaEventRecord(flight.ready, gpu_.compute()), "cudaEventRecord");
  check(cudaStreamWaitEvent(channel.stream, flight.ready, 0), "cudaStreamWaitEvent");
  if (measuring_ && !open_) open_ = start_timer(channel.stream);
  return flight;
}

void NcclSession::launched(const NcclChannel& channel, Flight& flight, const Request& request) {
  if (open_) {
    transfers_.push_back(*std::exchange(open_, std::nullopt));
    check(cudaEventRecord(transfers_.back().second, channel.stream), "cudaEventRecord");
  }
  check(cudaEventRecord(flight.done, channel.stream), "cudaEventRecord");
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
    check(cudaEventRecord(waits_.back().second, gpu_.compute()), "cudaEventRecord");
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
    fail(state == ncclRemoteError ? Blame::kAnother : Blame::kThisRank, "NCCL: " + describe(state));
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
  {
    const std::lock_guard lock(mutex_);
    abort();
  }
  std::rethrow_exception(failure_);
}

void NcclSession::throw_if_failed() const {
  if (failure_) std::rethrow_exception(failure_);
}

// Under the lock. Ends what is in flight, so that the streams run dry.
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
  if (idle_timers_.empty()) idle_timers_.emplace_back(make_event(0), make_event(0));
  const Timer timer = idle_timers_.back();
  check(cudaEventRecord(timer.first, stream), "cudaEventRecord");
  idle_timers_.pop_back();
  return timer;
}

double NcclSession::take_seconds(std::vector<Timer>& timers) {
  double sum = 0;
  for (const auto& [before, after] : timers) {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, before, after), "cudaEventElapsedTime");
    sum += static_cast<double>(ms) / 1000;
  }
  idle_timers_.insert(idle_timers_.end(), timers.begin(), timers.end());
  timers.clear();
  return sum;
}

Communication NcclSession::take_communication() {
  gpu_.synchronize();
  // An operation that nobody waited for may still be under way.
  for (const Timer& transfer : transfers_)
    check(cudaEventSynchronize(transfer.second), "cudaEventSynchronize");
  return {take_seconds(waits_), take_seconds(transfers_)};
}

// The first message to a peer connects to it, and a split meets everybody: both block the host
// until the others come, which nobody but another thread can end.
void NcclSession::watch_calls(const std::stop_token& stop) {
  const auto period = std::clamp<std::chrono::milliseconds>(
      time_limit_ / 8, std::chrono::milliseconds(5), std::chrono::milliseconds(100));
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    stopped_.wait_for(lock, stop, period, [] { return false; });
    const bool blocked = in_call_since_ && Clock::now() - *in_call_since_ > time_limit_;
    if (in_call_since_ && (blocked || peers_failed())) abort();
  }
}

void NcclSession::enter_call() {
  const std::lock_guard lock(mutex_);
  in_call_since_ = Clock::now();
}

void NcclSession::leave_call(const std::string& said) {
  {
    const std::lock_guard lock(mutex_);
    in_call_since_.reset();
    if (!aborted_) return;
  }
  throw_if_failed();
  if (peers_failed())
    fail(Blame::kAnother, "another rank has failed" + (said.empty() ? said : "; " + said));
  fail(Blame::kThisRank,
       fmt::format("the time limit of {} s has passed in a call of NCCL", seconds(time_limit_)));
}

}  // namespace sp::SP_GPU
