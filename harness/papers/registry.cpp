// All replayed items by paper: RSA, Ring Attention, LWM, TokenRing, LASP-1, LASP-2, then peers.
// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "harness/papers/items.hpp"

namespace sp {

std::span<const ReplayItem* const> replay_items() {
  static const std::vector<const ReplayItem*> items{
      &kRsaCommunication,
      &kRsaMemory,
      &kRsaTable4,
      &kRsaClaims,
      &kRingAttentionTable1,
      &kRingAttentionTable2,
      &kRingAttentionTable3,
      &kRingAttentionFigure5,
      &kRingAttentionOverlap,
      &kLwmLockstep,
      &kLwmMeshes,
      &kLwmDecode,
      &kLasp1Communication,
      &kLasp1Speed,
      &kLasp2Layer2048k,
      &kLasp2Communication,
      &kLasp2ChainVsGather,
      &kLasp2Figure3,
      &kLasp2Table5,
      &kLasp2Table6,
      &kStripedTheoretical,
      &kStripedObserved,
      &kZigzagReadme,
      &kUspTable3,
      &kUspTable4,
      &kTokenRingCaseStudy,
      &kTokenRingTraffic,
      &kTokenRingControls,
      &kDistFlashTable1,
      &kDistFlashTable4,
      &kBurstTable2,
      &kBurstTable3,
  };
  return items;
}

const ReplayItem* find_replay(const std::string& id) {
  for (const ReplayItem* item : replay_items()) {
    if (item->id == id) return item;
  }
  return nullptr;
}

}  // namespace sp
