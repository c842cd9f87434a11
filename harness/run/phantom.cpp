// SPDX-License-Identifier: Apache-2.0
#include "harness/run/phantom.hpp"

#include <fmt/format.h>

namespace sp {

void PhantomMemory::download(void*, const Tensor&) const {
  SP_CHECK(false, "a phantom tensor has no data to look at");
}

std::byte* PhantomMemory::acquire(std::int64_t bytes, const char* name) {
  if (capacity_ != kUnlimited && resident_ + live_bytes() + bytes > capacity_) {
    throw OutOfMemory(fmt::format(
        "{} needs {} bytes beside {} bytes of tensors and {} bytes that are resident; the device "
        "has {}",
        name, bytes, live_bytes(), resident_, capacity_));
  }
  return nullptr;
}

Shards phantom_shards(const Problem& problem, const Layout& layout, int rank, Memory& memory) {
  const Shape& s = problem.shape;
  const std::int64_t n = layout.count(rank), G = s.G * problem.layer_count();
  const DType dtype = problem.dtype, wide = accumulator_of(dtype);
  Shards shards{problem,
                layout,
                {{problem.mask.causal, problem.mask.window}, {}},
                memory.allocate(dtype, {n, s.B, s.H, s.D}, "q"),
                memory.allocate(dtype, {n, s.B, G, s.D}, "k"),
                memory.allocate(dtype, {n, s.B, G, s.E}, "v")};
  if (!problem.mask.segment_ids.empty())
    shards.mask.segments = memory.allocate(DType::kI32, {s.B, s.N, 1, 1}, "segments");
  if (problem.projected > 0) {
    shards.projection_k = memory.allocate(dtype, {n, 1, 1, problem.projected}, "projection_k");
    shards.projection_v = memory.allocate(dtype, {n, 1, 1, problem.projected}, "projection_v");
  }
  const Decay decay = problem.module ? decay_of(*problem.module) : Decay::kNone;
  if (decay == Decay::kPerChannel)
    shards.log_decay = memory.allocate(wide, {n, s.B, s.H, s.D}, "log_decay");
  if (decay == Decay::kPerHead)
    shards.log_decay = memory.allocate(wide, {1, 1, s.H, 1}, "log_decay");
  if (problem.module == Module::kRebased) {
    shards.gamma = memory.allocate(wide, {1, 1, 1, s.D}, "gamma");
    shards.beta = memory.allocate(wide, {1, 1, 1, s.D}, "beta");
  }
  return shards;
}

Tensor phantom_d_out(const Problem& problem, const Layout& layout, int rank, Memory& memory) {
  const Shape& s = problem.shape;
  return memory.allocate(problem.dtype, {layout.count(rank), s.B, s.H, s.E}, "d_out");
}

}  // namespace sp
