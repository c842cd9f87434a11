// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/query_stream.hpp"

#include <algorithm>
#include <utility>

namespace sp {
namespace {

int at(const Communicator& comm, int offset) {
  return (comm.rank() + comm.size() + offset % comm.size()) % comm.size();
}

// One block is used, one arrives; the own one needs no room.
std::int64_t rooms(const Layout& layout) { return std::min(layout.ranks() - 1, 2); }

}  // namespace

QueryStream::QueryStream(Context& ctx, const Shards& in, Queries own)
    : ctx_(ctx), layout_(in.layout), held_(std::move(own)) {
  for (int buffer = 0; buffer < rooms(layout_); ++buffer)
    buffers_[static_cast<std::size_t>(buffer)] = allocate_block(ctx, held_, largest_shard(layout_));
}

int QueryStream::owner(int step) const { return at(ctx_.comm, -step); }

void QueryStream::post(int step) {
  if (step + 1 == ctx_.comm.size()) return;
  const Tokens tokens = layout_.tokens(owner(step + 1));
  next_ = first_rows(buffers_[static_cast<std::size_t>(step % 2)], tokens.count());
  next_.tokens = tokens;
  std::vector<Message> sends, receives;
  append_all(sends, at(ctx_.comm, 1), held_, step);
  append_all(receives, at(ctx_.comm, -1), next_, step);
  pending_ = ctx_.comm.exchange(std::move(sends), std::move(receives));
}

void QueryStream::advance(int step) {
  if (step + 1 == ctx_.comm.size()) return;
  pending_.wait();
  held_ = next_;
}

std::int64_t query_stream_bytes(const Layout& layout, int rank, std::int64_t row) {
  // Every block passes through except the one that ends here: that of the rank this one sends to.
  return (layout.size() - layout.count((rank + 1) % layout.ranks())) * row;
}

QueryGradientStream::QueryGradientStream(Context& ctx, const Shards& in, const QueryStream& queries)
    : ctx_(ctx), layout_(in.layout), queries_(queries) {
  if (layout_.ranks() == 1) return;
  const DType dtype = accumulator_of(in.problem.dtype);
  const std::int64_t most = largest_shard(layout_);
  for (int room = 0; room < rooms(layout_); ++room) {
    shares_[static_cast<std::size_t>(room)] = allocate_like(ctx, in.q, dtype, most, "d_q");
  }
  incoming_ = allocate_like(ctx, in.q, dtype, most, "d_q");
}

Tensor QueryGradientStream::fresh(int step) {
  const Tensor& room = shares_[static_cast<std::size_t>((step - 1) % 2)];
  const Tensor share = room.rows(0, layout_.count(queries_.owner(step)));
  ctx_.kernels.fill(share, 0);
  return share;
}

void QueryGradientStream::pass(int step, const Tensor& share) {
  if (step > 1) {
    pending_.wait();
    ctx_.kernels.add(share, incoming_.rows(0, share.extent(0)));
  }
  home_ = incoming_.rows(0, layout_.count(queries_.owner(step + 1)));
  const Label label{"d_q", step};
  pending_ =
      ctx_.comm.exchange({{at(ctx_.comm, 1), share, label}}, {{at(ctx_.comm, -1), home_, label}});
}

const Tensor& QueryGradientStream::home() {
  pending_.wait();
  return home_;
}

}  // namespace sp
