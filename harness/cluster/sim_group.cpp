// Who sends what to whom in a collective, and its data.
// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/sim_group.hpp"

#include <utility>

#include "optimized/comm/host_buffer.hpp"

namespace sp {
namespace {

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

std::vector<int> devices_of(const SimCluster& cluster, const std::vector<int>& members) {
  std::vector<int> devices;
  for (const int member : members) devices.push_back(cluster.device(member));
  return devices;
}

void copy_content(const Tensor& target, const Tensor& content) {
  if (target.defined() && content.defined()) copy_bytes(target, content);
}

// A collective sends one message to everybody, or one to each.
const Tensor& content_for(const SimOperation& operation, int to) {
  return operation.contents.size() == 1 ? operation.contents.front()
                                        : operation.contents[index(to)];
}

}  // namespace

SimGroup::SimGroup(SimCluster& of, std::vector<int> members_by_rank, int channel_number)
    : cluster(of),
      members(std::move(members_by_rank)),
      channel(channel_number),
      planner(of.platform(), of.wires(), devices_of(of, members)) {}

Envelope outgoing(const SimOperation& operation, int to) {
  const Request& request = operation.request;
  const std::vector<Message>& all = request.pattern == Pattern::kAllReduce || request.sends.empty()
                                        ? request.receives
                                        : request.sends;
  return envelope_of(request.pattern, all.size() == 1 ? all.front() : all[index(to)]);
}

Envelope incoming(const SimOperation& operation, int from) {
  const Request& request = operation.request;
  const std::vector<Message>& all = request.receives.empty() ? request.sends : request.receives;
  return envelope_of(request.pattern, all.size() == 1 ? all.front() : all[index(from)]);
}

Tensor snapshot(const Tensor& tensor) {
  if (tensor.data() == nullptr) return {};
  Tensor content = host_buffer(tensor.dtype(), tensor.shape(), tensor.name());
  copy_bytes(content, tensor);
  return content;
}

void deliver(SimMessage& message) { copy_content(message.target, message.content); }

void deliver(const SimMeeting& meeting) {
  std::vector<std::shared_ptr<SimOperation>> all;
  for (const auto& each : meeting.operations) all.push_back(each.lock());
  for (const auto& to : all) {
    const Request& request = to->request;
    switch (request.pattern) {
      case Pattern::kExchange:
        break;
      case Pattern::kAllGather:
      case Pattern::kAllToAll:
        for (const auto& from : all) {
          copy_content(request.receives[index(from->rank)].data, content_for(*from, to->rank));
        }
        break;
      case Pattern::kBroadcast:
        if (to->rank != request.root) {
          copy_content(request.receives.front().data, all[index(request.root)]->contents.front());
        }
        break;
      case Pattern::kReduceScatter:
      case Pattern::kAllReduce: {
        std::vector<Tensor> sources;  // in rank order: the same sum on every back-end, bit for bit
        for (const auto& from : all) sources.push_back(content_for(*from, to->rank));
        if (sources.front().defined()) sum_in_order(request.receives.front().data, sources);
        break;
      }
    }
  }
}

}  // namespace sp
