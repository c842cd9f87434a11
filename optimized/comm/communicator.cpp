// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/communicator.hpp"

#include <fmt/format.h>

#include <utility>

#include "optimized/comm/envelope.hpp"

namespace sp {
namespace {

std::vector<Message> to_every_rank(std::vector<Tensor> tensors, Label label) {
  std::vector<Message> messages;
  messages.reserve(tensors.size());
  int peer = 0;
  for (Tensor& tensor : tensors) messages.push_back({peer++, std::move(tensor), label});
  return messages;
}

std::int64_t total_bytes(const std::vector<Message>& messages) {
  std::int64_t bytes = 0;
  for (const Message& message : messages) bytes += message.data.bytes();
  return bytes;
}

bool sums(Pattern pattern) {
  return pattern == Pattern::kReduceScatter || pattern == Pattern::kAllReduce;
}

// A rank's part for itself, which does not travel, in a collective of parts; null in others.
std::pair<const Message*, const Message*> own_part(const Request& request, int rank) {
  const auto of = [&](const std::vector<Message>& parts) {
    return &parts[static_cast<std::size_t>(rank)];
  };
  switch (request.pattern) {
    case Pattern::kAllGather:
      return {&request.sends.front(), of(request.receives)};
    case Pattern::kReduceScatter:
      return {of(request.sends), &request.receives.front()};
    case Pattern::kAllToAll:
      return {of(request.sends), of(request.receives)};
    default:
      return {nullptr, nullptr};
  }
}

// Parts of others are compared where they meet: envelope.hpp.
void check_own_part(const Request& request, int rank) {
  const auto [given, room] = own_part(request, rank);
  if (given == nullptr || given->data.bytes() == room->data.bytes()) return;
  SP_CHECK(false, fmt::format("{} of {} step {}: rank {} gives itself {} bytes and has room for {}",
                              name_of(request.pattern), given->label.tensor, given->label.step,
                              rank, given->data.bytes(), room->data.bytes()));
}

void check(const Request& request, int size) {
  for (const auto* messages : {&request.sends, &request.receives}) {
    for (const Message& message : *messages) {
      SP_CHECK(message.data.defined() && message.data.contiguous(),
               "a message needs a contiguous tensor");
      SP_CHECK(0 <= message.peer && message.peer < size, "a peer is outside the communicator");
      SP_CHECK(
          !sums(request.pattern) || message.data.dtype() == accumulator_of(message.data.dtype()),
          "sums over ranks are taken in f32 or f64");
    }
  }
}

Traffic traffic_of(const Request& request, int rank, int size) {
  switch (request.pattern) {
    case Pattern::kExchange:
      return {total_bytes(request.sends), static_cast<std::int64_t>(request.sends.size())};
    case Pattern::kAllGather:
      return all_gather_traffic(total_bytes(request.sends), size);
    case Pattern::kReduceScatter:
    case Pattern::kAllToAll:
      return scatter_traffic(total_bytes(request.sends),
                             request.sends[static_cast<std::size_t>(rank)].data.bytes(), size);
    case Pattern::kAllReduce: {
      const Tensor& tensor = request.receives.front().data;
      const auto bytes = static_cast<std::int64_t>(size_of(tensor.dtype()));
      return all_reduce_traffic(tensor.elements(), bytes, rank, size);
    }
    case Pattern::kBroadcast:
      return request.sends.empty() ? Traffic{}
                                   : all_gather_traffic(total_bytes(request.sends), size);
  }
  return {};
}

}  // namespace

Pending Communicator::post(Request request) {
  check(request, size_);
  check_own_part(request, rank_);
  *traffic_ += traffic_of(request, rank_, size_);
  return Pending(start(std::move(request)));
}

Pending Communicator::exchange(std::vector<Message> sends, std::vector<Message> receives) {
  return post({Pattern::kExchange, std::move(sends), std::move(receives)});
}

Pending Communicator::all_gather(const Tensor& mine, std::vector<Tensor> all, Label label) {
  SP_CHECK(static_cast<int>(all.size()) == size_, "all_gather needs one destination per rank");
  return post({Pattern::kAllGather, {{rank_, mine, label}}, to_every_rank(std::move(all), label)});
}

Pending Communicator::reduce_scatter(std::vector<Tensor> parts, const Tensor& sum, Label label) {
  SP_CHECK(static_cast<int>(parts.size()) == size_, "reduce_scatter needs one part per rank");
  return post(
      {Pattern::kReduceScatter, to_every_rank(std::move(parts), label), {{rank_, sum, label}}});
}

Pending Communicator::all_reduce(const Tensor& tensor, Label label) {
  return post({Pattern::kAllReduce, {}, {{rank_, tensor, label}}});
}

Pending Communicator::all_to_all(std::vector<Tensor> sends, std::vector<Tensor> receives,
                                 Label label) {
  SP_CHECK(static_cast<int>(sends.size()) == size_ && static_cast<int>(receives.size()) == size_,
           "all_to_all needs one tensor per rank in each direction");
  return post({Pattern::kAllToAll, to_every_rank(std::move(sends), label),
               to_every_rank(std::move(receives), label)});
}

Pending Communicator::broadcast(const Tensor& tensor, int root, Label label) {
  Request request{Pattern::kBroadcast, {}, {}, root};
  (rank_ == root ? request.sends : request.receives).push_back({root, tensor, label});
  return post(std::move(request));
}

std::unique_ptr<Communicator> Communicator::split(int colour, int key) {
  return start_split(colour, key);
}

Communicator& Communicator::group(const std::string& name, const Ranks& members) {
  Group& group = groups_[name];
  if (group.comm == nullptr) group = {members, start_group(members)};
  SP_CHECK(group.members == members, "a group's name is used for two partitions");
  return *group.comm;
}

}  // namespace sp
