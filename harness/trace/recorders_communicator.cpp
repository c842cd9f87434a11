// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <numeric>
#include <utility>

#include "harness/trace/recorders.hpp"
#include "optimized/comm/decorator.hpp"
#include "optimized/comm/host_buffer.hpp"

namespace sp {
namespace {

// What the communicators of one rank share.
struct RankTrace {
  Timeline& timeline;
  int rank = 0;
  int channels = 0;       // communicators made so far
  std::int64_t sent = 0;  // bytes counted up to the last post
};

class RecordedOperation final : public Operation {
 public:
  RecordedOperation(std::unique_ptr<Operation> inner, std::shared_ptr<RankTrace> trace,
                    std::vector<Span> messages)
      : inner_(std::move(inner)), trace_(std::move(trace)), messages_(std::move(messages)) {}

  void wait() override {
    const double begin = trace_clock_s();
    inner_->wait();
    const double end = trace_clock_s();
    if (messages_.empty()) return;
    Span wait = messages_.back();
    wait.lane = TraceLane::kWait;
    wait.start_s = begin;
    wait.end_s = end;
    wait.bytes = 0;
    wait.peer = -1;
    trace_->timeline.add(std::move(wait));
    for (Span& message : messages_) {
      message.end_s = end;
      trace_->timeline.add(std::move(message));
    }
  }

 private:
  std::unique_ptr<Operation> inner_;
  std::shared_ptr<RankTrace> trace_;
  std::vector<Span> messages_;  // without their end
};

class RecordingCommunicator final : public CommunicatorDecorator {
 public:
  template <class Inner>
  RecordingCommunicator(Inner&& inner, std::shared_ptr<RankTrace> trace)
      : CommunicatorDecorator(std::forward<Inner>(inner)),
        trace_(std::move(trace)),
        channel_(trace_->channels++) {
    members_.resize(static_cast<std::size_t>(size()));
    if (channel_ == 0) {
      std::iota(members_.begin(), members_.end(), 0);
      trace_->sent = traffic().bytes_sent;
    } else {
      meet_members();
    }
  }

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    const std::int64_t sent = traffic().bytes_sent - trace_->sent;
    trace_->sent += sent;
    std::vector<Span> spans;
    if (size() > 1) spans = spans_of(request, sent, trace_clock_s());
    return std::make_unique<RecordedOperation>(start_inner(std::move(request)), trace_,
                                               std::move(spans));
  }

  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    return std::make_unique<RecordingCommunicator>(split_inner(colour, key), trace_);
  }

 private:
  // Every member's rank in the world, told through the communicator itself; counted nowhere.
  void meet_members() {
    const auto number = [] { return host_buffer(DType::kI32, {1, 1, 1, 1}, "world rank"); };
    const Label label{"world rank", 0};
    const Tensor mine = number();
    *mine.as<std::int32_t>() = trace_->rank;
    Request request{Pattern::kAllGather, {{rank(), mine, label}}, {}};
    for (int peer = 0; peer < size(); ++peer) request.receives.push_back({peer, number(), label});
    const std::vector<Message> all = request.receives;
    start_inner(std::move(request))->wait();
    for (std::size_t peer = 0; peer < all.size(); ++peer)
      members_[peer] = *all[peer].data.as<std::int32_t>();
  }

  std::vector<Span> spans_of(const Request& request, std::int64_t sent, double now) const {
    std::vector<Span> spans;
    const auto add = [&](TraceLane lane, const Message& message, int peer, std::int64_t bytes) {
      spans.push_back({.rank = trace_->rank,
                       .lane = lane,
                       .name = message.label.tensor,
                       .start_s = now,
                       .bytes = bytes,
                       .step = message.label.step,
                       .peer = peer,
                       .channel = channel_});
    };
    if (request.pattern == Pattern::kExchange) {
      for (const Message& message : request.sends)
        add(TraceLane::kSend, message, member(message.peer), message.data.bytes());
      for (const Message& message : request.receives)
        add(TraceLane::kReceive, message, member(message.peer), message.data.bytes());
      return spans;
    }
    const Message& any = request.sends.empty() ? request.receives.front() : request.sends.front();
    std::int64_t received = 0;
    for (const Message& message : request.receives) {
      const bool own = request.receives.size() > 1 && message.peer == rank();
      if (!own) received += message.data.bytes();
    }
    if (sent > 0) add(TraceLane::kSend, any, -1, sent);
    if (!request.receives.empty()) add(TraceLane::kReceive, any, -1, received);
    return spans;
  }
  int member(int peer) const { return members_[static_cast<std::size_t>(peer)]; }

  std::shared_ptr<RankTrace> trace_;
  int channel_;
  std::vector<int> members_;  // ranks of the world
};

template <class Inner>
std::unique_ptr<Communicator> recorded(Inner&& inner, int rank, Timeline& timeline) {
  return std::make_unique<RecordingCommunicator>(
      std::forward<Inner>(inner), std::make_shared<RankTrace>(RankTrace{timeline, rank}));
}

}  // namespace

double trace_clock_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::unique_ptr<Communicator> recorded_communicator(std::unique_ptr<Communicator> inner,
                                                    Timeline& timeline) {
  const int rank = inner->rank();
  return recorded(std::move(inner), rank, timeline);
}

std::unique_ptr<Communicator> recorded_communicator(Communicator& inner, Timeline& timeline) {
  return recorded(inner, inner.rank(), timeline);
}

Rig recording(Rig rig, Timeline& timeline) {
  // A rank's kernels do not know their rank. A rig wraps both on the rank's thread, first the
  // communicator.
  static thread_local int rank_of_this_thread = 0;
  rig.wrap_communicator = [wrap = std::move(rig.wrap_communicator), &timeline](Communicator& comm) {
    rank_of_this_thread = comm.rank();
    return wrap ? recorded_communicator(wrap(comm), timeline)
                : recorded_communicator(comm, timeline);
  };
  rig.wrap_kernels = [wrap = std::move(rig.wrap_kernels), &timeline](Kernels& kernels,
                                                                     Memory& spare) {
    std::unique_ptr<Kernels> wrapped = wrap ? wrap(kernels, spare) : nullptr;
    Kernels& inner = wrapped ? *wrapped : kernels;
    return recorded_kernels(inner, std::move(wrapped), rank_of_this_thread, timeline);
  };
  return rig;
}

}  // namespace sp
