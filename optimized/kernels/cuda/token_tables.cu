// Tokens on the device: one table per distinct block of tokens, written there from its runs. Nothing
// is uploaded: a copy from pageable memory may block the host behind a stream that waits for a peer.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <tuple>

#include "optimized/kernels/cuda/vectors.cuh"
#include "optimized/kernels/cuda/views.hpp"

namespace sp::SP_GPU {
namespace {

// Some runs of a block: 1 KiB of a kernel's parameters.
constexpr int kMostRuns = 64;
struct RunList {
  int first[kMostRuns];
  int stride[kMostRuns];
  int begin[kMostRuns + 1];  // of a run's tokens in the block; the last one is the list's end
  int count = 0;
};

__global__ void __launch_bounds__(kStrideThreads)
    write_positions(Global<int> positions, RunList runs) {
  const int step = static_cast<int>(gridDim.x) * kStrideThreads;
  const int end = runs.begin[runs.count];
  int run = 0;
  for (int i = runs.begin[0] + static_cast<int>(blockIdx.x) * kStrideThreads + thread_id(); i < end;
       i += step) {
    while (i >= runs.begin[run + 1]) ++run;
    positions.store(i, runs.first[run] + (i - runs.begin[run]) * runs.stride[run]);
  }
}

__global__ void __launch_bounds__(kStrideThreads)
    write_spans(Global<int2> spans, Global<const int> positions, int count) {
  const int tile = static_cast<int>(blockIdx.x) * kStrideThreads + thread_id();
  const int begin = tile * kTileTokens;
  if (begin >= count) return;
  int2 span{positions.load(begin), positions.load(begin)};
  for (int i = begin + 1; i < begin + kTileTokens && i < count; ++i) {
    const int position = positions.load(i);
    span.x = span.x < position ? span.x : position;
    span.y = span.y > position ? span.y : position;
  }
  spans.store(tile, span);
}

// The runs from number `next` on, as many as a list holds.
RunList list_from(const std::vector<Run>& runs, std::size_t next, int begin) {
  RunList list;
  list.begin[0] = begin;
  for (; next < runs.size() && list.count < kMostRuns; ++next) {
    const Run& run = runs[next];
    SP_CHECK(std::min(run.first, run.last()) >= 0 &&
                 std::max(run.first, run.last()) < std::numeric_limits<int>::max(),
             "positions on a GPU are 31-bit");
    list.first[list.count] = static_cast<int>(run.first);
    list.stride[list.count] = static_cast<int>(run.count == 1 ? 1 : run.stride);
    list.begin[list.count + 1] = list.begin[list.count] + static_cast<int>(run.count);
    ++list.count;
  }
  return list;
}

// Spans, then positions.
struct Parts {
  Global<int2> spans;
  Global<int> positions;
  int tiles;
  Parts(const Scratch& scratch, int count) : spans(scratch.as<int2>()) {
    tiles = (count + kTileTokens - 1) / kTileTokens;
    positions = Global<int>(reinterpret_cast<int*>(scratch.as<int2>() + tiles));
  }
  static std::int64_t bytes(std::int64_t count) {
    return (count + kTileTokens - 1) / kTileTokens * static_cast<std::int64_t>(sizeof(int2)) +
           count * static_cast<std::int64_t>(sizeof(int));
  }
};

std::unique_ptr<Scratch> write_table(const Gpu& gpu, const std::vector<Run>& runs, int count) {
  auto scratch = std::make_unique<Scratch>(gpu, Parts::bytes(count));
  const Parts parts(*scratch, count);
  int begin = 0;
  for (std::size_t next = 0; next < runs.size(); next += kMostRuns) {
    const RunList list = list_from(runs, next, begin);
    const int end = list.begin[list.count];
    launch(gpu, "write_positions", write_positions, grid_stride(gpu, end - begin), parts.positions,
           list);
    begin = end;
  }
  const Launch shape{
      dim3(static_cast<unsigned>((parts.tiles + kStrideThreads - 1) / kStrideThreads)),
      kStrideThreads, 0};
  launch(gpu, "write_spans", write_spans, shape, parts.spans, Global<const int>(parts.positions),
         count);
  return scratch;
}

}  // namespace

bool TokenTables::Before::operator()(const std::vector<Run>& a, const std::vector<Run>& b) const {
  return std::lexicographical_compare(
      a.begin(), a.end(), b.begin(), b.end(), [](const Run& x, const Run& y) {
        return std::tie(x.first, x.stride, x.count) < std::tie(y.first, y.stride, y.count);
      });
}

TokenTable TokenTables::of(const Tokens& tokens) {
  if (tokens.count() == 0) return {};
  SP_CHECK(tokens.count() <= 1 << 30, "a block on a GPU has up to 2^30 tokens");
  const auto count = static_cast<int>(tokens.count());
  auto table = tables_.find(tokens.runs());
  if (table == tables_.end())
    table = tables_.emplace(tokens.runs(), write_table(gpu_, tokens.runs(), count)).first;
  const Parts parts(*table->second, count);
  return {parts.positions, parts.spans, tokens.count()};
}

}  // namespace sp::SP_GPU
