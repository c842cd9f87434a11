// The items of the papers that are replayed, one line each; registry.cpp lists them.
//
// To add one  1. harness/papers/<paper>/<item>.cpp (underscores) defines `const ReplayItem k...`
//                with id "<paper>/<item>" (hyphens within the item) and its run().
//             2. experiments/configs/<id>.toml: sizes, platforms, whatever run() asks for.
//             3. Its line here, in registry.cpp and in CMakeLists.txt.
//             `seqpar reproduce` and `list` find the item by themselves.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/papers/replay.hpp"

namespace sp {

extern const ReplayItem kRsaCommunication;
extern const ReplayItem kRingAttentionTable1;
extern const ReplayItem kRingAttentionTable2;
extern const ReplayItem kRingAttentionFigure5;
extern const ReplayItem kStripedTheoretical;
extern const ReplayItem kStripedObserved;
extern const ReplayItem kZigzagReadme;
extern const ReplayItem kUspTable3;
extern const ReplayItem kUspTable4;
extern const ReplayItem kRsaMemory;
extern const ReplayItem kRsaTable4;
extern const ReplayItem kRingAttentionTable3;
extern const ReplayItem kRingAttentionOverlap;
extern const ReplayItem kLasp2Layer2048k;
extern const ReplayItem kLwmLockstep;
extern const ReplayItem kLwmMeshes;
extern const ReplayItem kLwmDecode;
extern const ReplayItem kRsaClaims;
extern const ReplayItem kLasp1Communication;
extern const ReplayItem kLasp2Communication;
extern const ReplayItem kLasp2ChainVsGather;
extern const ReplayItem kLasp2Figure3;
extern const ReplayItem kLasp2Table5;
extern const ReplayItem kLasp2Table6;
extern const ReplayItem kLasp1Speed;
extern const ReplayItem kDistFlashTable1;
extern const ReplayItem kDistFlashTable4;
extern const ReplayItem kBurstTable2;
extern const ReplayItem kBurstTable3;
extern const ReplayItem kTokenRingCaseStudy;
extern const ReplayItem kTokenRingTraffic;
extern const ReplayItem kTokenRingControls;

}  // namespace sp
