// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/nccl/nccl_requests.hpp"

#include <algorithm>

namespace sp::SP_GPU {
namespace {

using Messages = std::vector<Message>;

ncclDataType_t type_of(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::kF32:
      return ncclFloat32;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kF16:
      return ncclFloat16;
    case DType::kF64:
      return ncclFloat64;
    case DType::kI32:
      return ncclInt32;
  }
  SP_CHECK(false, "an unknown type");
}

std::size_t count_of(const Tensor& tensor) { return static_cast<std::size_t>(tensor.elements()); }

const Tensor& mine_of(const Messages& messages, const NcclChannel& channel) {
  return messages[static_cast<std::size_t>(channel.rank)].data;
}

// A group left by an exception is closed: it would swallow the thread's next calls.
class Group {
 public:
  Group() { check(ncclGroupStart(), "ncclGroupStart"); }
  ~Group() {
    if (!closed_) ncclGroupEnd();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  void close() {
    closed_ = true;
    check(ncclGroupEnd(), "ncclGroupEnd");
  }

 private:
  bool closed_ = false;
};

void send(const NcclChannel& channel, const Tensor& data, int peer) {
  if (data.elements() == 0) return;
  check(ncclSend(data.data(), count_of(data), type_of(data), peer, channel.comm, channel.stream),
        "ncclSend");
}

void receive(const NcclChannel& channel, const Tensor& data, int peer) {
  if (data.elements() == 0) return;
  check(ncclRecv(data.data(), count_of(data), type_of(data), peer, channel.comm, channel.stream),
        "ncclRecv");
}

// Equally many elements each, one behind the other in one storage: what NCCL's collectives take.
bool adjacent(const Messages& parts) {
  const Tensor& first = parts.front().data;
  const std::byte* next = first.data();
  return std::all_of(parts.begin(), parts.end(), [&](const Message& part) {
    const bool fits = part.data.shares_storage(first) && part.data.data() == next &&
                      part.data.bytes() == first.bytes() && part.data.dtype() == first.dtype();
    next += first.bytes();
    return fits;
  });
}

// sends[r] to rank r, receives[r] from it; what stays here and is in place already is left alone.
void post_all_to_all(const NcclChannel& channel, const Messages& sends, const Messages& receives) {
  const bool in_place = mine_of(sends, channel).data() == mine_of(receives, channel).data();
  Group group;
  for (int distance = in_place ? 1 : 0; distance < channel.size; ++distance) {
    const int to = (channel.rank + distance) % channel.size;
    const int from = (channel.rank + channel.size - distance) % channel.size;
    send(channel, sends[static_cast<std::size_t>(to)].data, to);
    receive(channel, receives[static_cast<std::size_t>(from)].data, from);
  }
  group.close();
}

void post_exchange(const NcclChannel& channel, const Request& request) {
  Group group;
  for (const Message& message : request.sends) send(channel, message.data, message.peer);
  for (const Message& message : request.receives) receive(channel, message.data, message.peer);
  group.close();
}

void post_all_gather(const NcclChannel& channel, const Request& request) {
  const Tensor& mine = request.sends.front().data;
  if (!adjacent(request.receives)) {
    const Messages sends(static_cast<std::size_t>(channel.size), request.sends.front());
    return post_all_to_all(channel, sends, request.receives);
  }
  if (mine.elements() == 0) return;
  check(ncclAllGather(mine.data(), request.receives.front().data.data(), count_of(mine),
                      type_of(mine), channel.comm, channel.stream),
        "ncclAllGather");
}

void post_reduce_scatter(const NcclChannel& channel, const Request& request) {
  const Tensor& sum = request.receives.front().data;
  if (adjacent(request.sends)) {
    if (sum.elements() == 0) return;
    return check(ncclReduceScatter(request.sends.front().data.data(), sum.data(), count_of(sum),
                                   type_of(sum), ncclSum, channel.comm, channel.stream),
                 "ncclReduceScatter");
  }
  Group group;
  for (const Message& part : request.sends) {
    if (part.data.elements() == 0) continue;
    std::byte* to = part.peer == channel.rank ? sum.data() : part.data.data();  // of the root only
    check(ncclReduce(part.data.data(), to, count_of(part.data), type_of(part.data), ncclSum,
                     part.peer, channel.comm, channel.stream),
          "ncclReduce");
  }
  group.close();
}

void post_all_reduce(const NcclChannel& channel, const Request& request) {
  const Tensor& data = request.receives.front().data;
  if (data.elements() == 0) return;
  check(ncclAllReduce(data.data(), data.data(), count_of(data), type_of(data), ncclSum,
                      channel.comm, channel.stream),
        "ncclAllReduce");
}

void post_broadcast(const NcclChannel& channel, const Request& request) {
  const Tensor& data = (request.sends.empty() ? request.receives : request.sends).front().data;
  if (data.elements() == 0) return;
  check(ncclBroadcast(data.data(), data.data(), count_of(data), type_of(data), request.root,
                      channel.comm, channel.stream),
        "ncclBroadcast");
}

}  // namespace

void enqueue(const NcclChannel& channel, const Request& request) {
  switch (request.pattern) {
    case Pattern::kExchange:
      return post_exchange(channel, request);
    case Pattern::kAllGather:
      return post_all_gather(channel, request);
    case Pattern::kReduceScatter:
      return post_reduce_scatter(channel, request);
    case Pattern::kAllReduce:
      return post_all_reduce(channel, request);
    case Pattern::kAllToAll:
      return post_all_to_all(channel, request.sends, request.receives);
    case Pattern::kBroadcast:
      return post_broadcast(channel, request);
  }
}

}  // namespace sp::SP_GPU
