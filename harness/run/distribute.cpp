// SPDX-License-Identifier: Apache-2.0
#include "harness/run/distribute.hpp"

#include <algorithm>
#include <cstring>

namespace sp {
namespace {

std::vector<std::byte> download(const Tensor& tensor, const Memory& memory) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  memory.download(bytes.data(), tensor);
  return bytes;
}

// f(row of the shard, position) for every token, in order.
template <class F>
void for_each_token(const Tokens& tokens, F&& f) {
  std::int64_t row = 0;
  for (const Run& run : tokens.runs()) {
    for (std::int64_t i = 0; i < run.count; ++i) f(row++, run.position(i));
  }
}

// What every rank holds whole.
Tensor replicate(const HostTensor& whole, Tensor::Extents shape, Memory& memory, const char* name) {
  Tensor tensor = memory.allocate(whole.dtype(), shape, name);
  memory.upload(tensor, whole.data());
  return tensor;
}

}  // namespace

Tensor scatter(const HostTensor& whole, const Tokens& tokens, Memory& memory, const char* name) {
  const std::int64_t B = whole.extent(0), N = whole.extent(1);
  const std::int64_t heads = whole.extent(2), size = whole.extent(3);
  const auto row = static_cast<std::size_t>(heads * size) * size_of(whole.dtype());
  std::vector<std::byte> staged(static_cast<std::size_t>(tokens.count() * B) * row);
  for_each_token(tokens, [&](std::int64_t local, std::int64_t position) {
    for (std::int64_t b = 0; b < B && row > 0; ++b) {
      std::memcpy(staged.data() + static_cast<std::size_t>(local * B + b) * row,
                  whole.data() + static_cast<std::size_t>(b * N + position) * row, row);
    }
  });
  Tensor shard = memory.allocate(whole.dtype(), {tokens.count(), B, heads, size}, name);
  memory.upload(shard, staged.data());
  return shard;
}

void place(HostTensor& whole, const Tensor& shard, const Tokens& tokens, const Memory& memory) {
  SP_CHECK(whole.dtype() == shard.dtype(), "a shard is placed into a tensor of another type");
  const std::int64_t B = whole.extent(0), N = whole.extent(1);
  const auto row =
      static_cast<std::size_t>(whole.extent(2) * whole.extent(3)) * size_of(whole.dtype());
  const std::vector<std::byte> staged = download(shard, memory);
  SP_CHECK(staged.size() == static_cast<std::size_t>(tokens.count() * B) * row,
           "a shard has the wrong size");
  for_each_token(tokens, [&](std::int64_t local, std::int64_t position) {
    for (std::int64_t b = 0; b < B && row > 0; ++b) {
      std::memcpy(whole.data() + static_cast<std::size_t>(b * N + position) * row,
                  staged.data() + static_cast<std::size_t>(local * B + b) * row, row);
    }
  });
}

void place_lse(HostTensor& whole, const Tensor& shard, const Tokens& tokens,
               std::int64_t first_head, const Memory& memory) {
  SP_CHECK(whole.dtype() == shard.dtype(), "a shard is placed into a tensor of another type");
  const std::int64_t B = whole.extent(0), H = whole.extent(1), N = whole.extent(2);
  const std::int64_t heads = shard.extent(2);
  const std::vector<std::byte> staged = download(shard, memory);
  const std::size_t element = size_of(whole.dtype());
  for_each_token(tokens, [&](std::int64_t local, std::int64_t position) {
    for (std::int64_t b = 0; b < B; ++b) {
      for (std::int64_t h = 0; h < heads; ++h) {
        std::memcpy(whole.data() +
                        static_cast<std::size_t>((b * H + first_head + h) * N + position) * element,
                    staged.data() + static_cast<std::size_t>((local * B + b) * heads + h) * element,
                    element);
      }
    }
  });
}

Shards scatter(const Problem& problem, const Inputs& inputs, const Layout& layout, int rank,
               Memory& memory) {
  const Tokens tokens = layout.tokens(rank);
  const Shape& s = problem.shape;
  Shards shards{problem,
                layout,
                {{problem.mask.causal, problem.mask.window}, {}},
                scatter(inputs.q, tokens, memory, "q"),
                scatter(inputs.k, tokens, memory, "k"),
                scatter(inputs.v, tokens, memory, "v")};
  if (!problem.mask.segment_ids.empty()) {
    shards.mask.segments = memory.allocate(DType::kI32, {s.B, s.N, 1, 1}, "segments");
    memory.upload(shards.mask.segments, problem.mask.segment_ids.data());
  }
  if (problem.projected > 0) {
    const auto as_tokens = [&](const HostTensor& projection) {  // [N, K'] as [1, N, 1, K']
      HostTensor whole(projection.dtype(), {1, s.N, 1, problem.projected});
      std::copy_n(projection.data(),
                  static_cast<std::size_t>(whole.size()) * size_of(whole.dtype()),
                  whole.data());  // no memcpy: both are null where N = 0
      return whole;
    };
    shards.projection_k = scatter(as_tokens(inputs.projection_k), tokens, memory, "projection_k");
    shards.projection_v = scatter(as_tokens(inputs.projection_v), tokens, memory, "projection_v");
  }
  if (!inputs.log_decay.absent()) {
    shards.log_decay = decay_of(*problem.module) == Decay::kPerChannel
                           ? scatter(inputs.log_decay, tokens, memory, "log_decay")
                           : replicate(inputs.log_decay, {1, 1, s.H, 1}, memory, "log_decay");
  }
  if (!inputs.gamma.absent()) {
    shards.gamma = replicate(inputs.gamma, {1, 1, 1, s.D}, memory, "gamma");
    shards.beta = replicate(inputs.beta, {1, 1, 1, s.D}, memory, "beta");
  }
  return shards;
}

}  // namespace sp
