// The collectives in their direct form: P-1 messages from every rank, own parts copied in place.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/host_communicator.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "optimized/sharding/layout.hpp"

namespace sp {
namespace {

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

}  // namespace

void Stages::advance() {
  // A copy, because an operation that posts its last stage leaves the list.
  for (Operation* operation : std::vector<Operation*>(active_)) operation->advance();
}

// All messages in one transfer.
class HostCommunicator::Simple final : public sp::Operation {
 public:
  Simple(HostCommunicator& comm, std::shared_ptr<Transfer> transfer)
      : comm_(comm), transfer_(std::move(transfer)) {}

  void wait() override { comm_.wait_for(*transfer_); }

 private:
  HostCommunicator& comm_;
  std::shared_ptr<Transfer> transfer_;
};

// Everybody's part for me into staging space, then one sum.
class HostCommunicator::ReduceScatter final : public sp::Operation {
 public:
  ReduceScatter(HostCommunicator& comm, const Channel& channel, const std::vector<Tensor>& parts,
                Tensor sum, Label label)
      : comm_(comm), sum_(std::move(sum)), sources_(parts.size()) {
    const int rank = comm.rank();
    std::vector<Message> sends, receives;
    for (const int peer : comm.peers()) {
      sends.push_back({peer, parts[index(peer)], label});
      sources_[index(peer)] = comm.staging(sum_.dtype(), sum_.elements());
      receives.push_back({peer, sources_[index(peer)], label});
    }
    sources_[index(rank)] = parts[index(rank)];
    transfer_ = comm.post_messages(channel, std::move(sends), std::move(receives));
  }

  bool arrived() { return transfer_->done(); }
  void finish() {
    comm_.settle(*transfer_);
    comm_.sum(sum_, sources_);
  }
  void wait_for_parts() { comm_.wait_for(*transfer_); }
  void wait() override {
    wait_for_parts();
    finish();
  }

 private:
  HostCommunicator& comm_;
  Tensor sum_;
  std::vector<Tensor> sources_;  // by rank
  std::shared_ptr<Transfer> transfer_;
};

// A reduce-scatter of P nearly equal parts of the flat tensor, then an all-gather of the sums.
class HostCommunicator::AllReduce final : public sp::Operation, private Stages::Operation {
 public:
  AllReduce(HostCommunicator& comm, const Tensor& tensor, Label label)
      : comm_(comm),
        stages_(comm.stages_),
        second_channel_(comm.next_channel(Pattern::kAllReduce)),
        label_(label) {
    const Tensor flat = flat_view(tensor);
    for (int rank = 0; rank < comm.size(); ++rank) {
      parts_.push_back(flat.rows(part_begin(flat.elements(), comm.size(), rank),
                                 part_begin(flat.elements(), comm.size(), rank + 1)));
    }
    const Channel first_channel = comm.next_channel(Pattern::kAllReduce);
    scatter_.emplace(comm, first_channel, parts_, parts_[index(comm.rank())], label);
    stages_->add(this);
  }
  ~AllReduce() override { stages_->remove(this); }

  void wait() override {
    // advance_stages() inside wait_for_parts() may already have posted the second stage.
    while (gather_ == nullptr) {
      scatter_->wait_for_parts();
      advance();
    }
    comm_.wait_for(*gather_);
  }

 private:
  void advance() override {
    if (gather_ != nullptr || !scatter_->arrived()) return;
    scatter_->finish();
    std::vector<Message> sends, receives;
    for (const int peer : comm_.peers()) {
      sends.push_back({peer, parts_[index(comm_.rank())], label_});
      receives.push_back({peer, parts_[index(peer)], label_});
    }
    stages_->remove(this);
    gather_ = comm_.post_messages(second_channel_, std::move(sends), std::move(receives));
  }

  HostCommunicator& comm_;
  std::shared_ptr<Stages> stages_;
  Channel second_channel_;
  Label label_;
  std::vector<Tensor> parts_;  // of the tensor, by rank
  std::optional<ReduceScatter> scatter_;
  std::shared_ptr<Transfer> gather_;
};

std::vector<int> HostCommunicator::peers() const {
  std::vector<int> peers;
  for (int distance = 1; distance < size(); ++distance) {
    peers.push_back((rank() + distance) % size());
  }
  return peers;
}

Channel HostCommunicator::next_channel(Pattern pattern) { return {pattern, ++channels_}; }

std::unique_ptr<sp::Operation> HostCommunicator::start(Request request) {
  switch (request.pattern) {
    case Pattern::kExchange:
      return std::make_unique<Simple>(
          *this, post_messages({}, std::move(request.sends), std::move(request.receives)));
    case Pattern::kAllGather:
      return start_all_gather(std::move(request));
    case Pattern::kAllToAll:
      return start_all_to_all(std::move(request));
    case Pattern::kBroadcast:
      return start_broadcast(std::move(request));
    case Pattern::kReduceScatter: {
      std::vector<Tensor> parts;
      for (const Message& send : request.sends) parts.push_back(send.data);
      const Message& sum = request.receives.front();
      return std::make_unique<ReduceScatter>(*this, next_channel(request.pattern), parts, sum.data,
                                             sum.label);
    }
    case Pattern::kAllReduce:
      return std::make_unique<AllReduce>(*this, request.receives.front().data,
                                         request.receives.front().label);
  }
  SP_CHECK(false, "an unknown pattern");
}

std::unique_ptr<sp::Operation> HostCommunicator::start_all_gather(Request request) {
  const Message& mine = request.sends.front();
  copy(request.receives[index(rank())].data, mine.data);
  std::vector<Message> sends, receives;
  for (const int peer : peers()) {
    sends.push_back({peer, mine.data, mine.label});
    receives.push_back(request.receives[index(peer)]);
  }
  return std::make_unique<Simple>(
      *this, post_messages(next_channel(request.pattern), std::move(sends), std::move(receives)));
}

std::unique_ptr<sp::Operation> HostCommunicator::start_all_to_all(Request request) {
  copy(request.receives[index(rank())].data, request.sends[index(rank())].data);
  std::vector<Message> sends, receives;
  for (const int peer : peers()) {
    sends.push_back(request.sends[index(peer)]);
    receives.push_back(request.receives[index(peer)]);
  }
  return std::make_unique<Simple>(
      *this, post_messages(next_channel(request.pattern), std::move(sends), std::move(receives)));
}

std::unique_ptr<sp::Operation> HostCommunicator::start_broadcast(Request request) {
  std::vector<Message> sends;
  if (!request.sends.empty()) {
    const Message& root = request.sends.front();
    for (const int peer : peers()) sends.push_back({peer, root.data, root.label});
  }
  return std::make_unique<Simple>(
      *this,
      post_messages(next_channel(request.pattern), std::move(sends), std::move(request.receives)));
}

std::unique_ptr<Communicator> HostCommunicator::start_split(int colour, int key) {
  // An ordinary all-gather of (colour, key), so that a rank that never splits is found and named
  // like one that never sends.
  const Label label{"split", static_cast<int>(splits_)};
  const Tensor choices = host_buffer(DType::kI32, {size(), 2, 1, 1}, "split");
  const auto choice = [&](int of) { return choices.rows(of, of + 1); };
  choice(rank()).as<std::int32_t>()[0] = colour;
  choice(rank()).as<std::int32_t>()[1] = key;
  std::vector<Message> sends, receives;
  for (const int peer : peers()) {
    sends.push_back({peer, choice(rank()), label});
    receives.push_back({peer, choice(peer), label});
  }
  Channel channel = next_channel(Pattern::kAllGather);
  channel.of_hosts = true;
  const auto transfer = post_messages(channel, std::move(sends), std::move(receives));
  wait_for(*transfer);

  Group group{{}, 0, colour, splits_++};
  for (int member = 0; member < size(); ++member) {
    if (choice(member).as<std::int32_t>()[0] == colour) group.members.push_back(member);
  }
  std::stable_sort(group.members.begin(), group.members.end(), [&](int a, int b) {
    return choice(a).as<std::int32_t>()[1] < choice(b).as<std::int32_t>()[1];
  });
  const auto mine = std::find(group.members.begin(), group.members.end(), rank());
  group.rank = static_cast<int>(mine - group.members.begin());
  return form_group(group);
}

}  // namespace sp
