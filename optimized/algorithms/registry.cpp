// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/registry.hpp"

#include "optimized/algorithms/allgather_attention.hpp"
#include "optimized/algorithms/burst.hpp"
#include "optimized/algorithms/dist_flash.hpp"
#include "optimized/algorithms/double_ring.hpp"
#include "optimized/algorithms/lasp1.hpp"
#include "optimized/algorithms/lasp2.hpp"
#include "optimized/algorithms/lasp2h.hpp"
#include "optimized/algorithms/megatron_sp_linear.hpp"
#include "optimized/algorithms/mesh_attention.hpp"
#include "optimized/algorithms/pass_q.hpp"
#include "optimized/algorithms/ring_attention.hpp"
#include "optimized/algorithms/ring_linear.hpp"
#include "optimized/algorithms/rsa.hpp"
#include "optimized/algorithms/token_ring.hpp"
#include "optimized/algorithms/ulysses.hpp"
#include "optimized/algorithms/usp.hpp"

namespace sp {
namespace {

constexpr const Algorithm* kAlgorithms[] = {
    &kRingContiguous,
    &kRingStriped,
    &kRingZigzag,
    &kRingBidirectionalZigzag,
    &kRingTwoChannelZigzag,
    &kRsa,
    &kRsaSkip,
    &kRsaLinformer,
    &kTokenRingContiguous,
    &kTokenRingZigzag,
    &kTokenRingHybrid,
    &kAllgather,
    &kUlysses,
    &kUspContiguous,
    &kUspZigzag,
    &kDoubleRing,
    &kPassQ,
    &kBurst,
    &kDistFlash,
    &kMeshAttention,
    &kLasp2,
    &kLasp1,
    &kLasp1Released,
    &kZeco,
    &kRingLinear,
    &kRingLinearRight,
    &kMegatronSpLinear,
    &kLasp2h,
};

}  // namespace

std::span<const Algorithm* const> algorithms() { return kAlgorithms; }

const Algorithm* find_algorithm(std::string_view id) {
  for (const Algorithm* algorithm : algorithms()) {
    if (algorithm->id == id) return algorithm;
  }
  return nullptr;
}

}  // namespace sp
