// The left product of linear attention on the GPU: the cases that forward and backward meet, and
// their decays and documents.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tests/emulated/gpu_fixture.hpp"
#include "tests/unit/kernels_cases.hpp"

namespace sp::test {

struct LeftCase {
  BlockCase block;
  double decay;  // log decay of head 0; of head h times (h + 1); 0: none
};

constexpr double kScale = 0.37, kBefore = 0.5;  // results are added to what is there

// Those of the CPU's kernels, and more tiles, strides and documents; each with every decay.
inline std::vector<LeftCase> left_cases() {
  std::vector<BlockCase> blocks;
  for (const BlockCase& c : block_cases()) {
    if (c.dtype != DType::kF64) blocks.push_back(c);
  }
  const Tokens whole = run(0, 150);
  blocks.push_back({.name = "several_tiles_of_channels",
                    .D = 130,
                    .E = 200,
                    .q_tokens = whole,
                    .k_tokens = whole,
                    .band = {true, 0}});
  blocks.push_back({.name = "two_strides", .q_tokens = run(1, 70, 3), .k_tokens = run(0, 99, 2)});
  blocks.push_back({.name = "documents_in_stripes",
                    .B = 2,
                    .q_tokens = run(1, 99, 3),
                    .k_tokens = run(0, 140, 2),
                    .segment_length = 30});
  blocks.push_back({.name = "grouped_documents",
                    .B = 2,
                    .H = 4,
                    .G = 2,
                    .q_tokens = whole,
                    .k_tokens = whole,
                    .band = {true, 0},
                    .segment_length = 45,
                    .placement = Placement::kWindow});
  std::vector<LeftCase> cases;
  for (const BlockCase& block : blocks) {
    for (const double decay : {0.0, -0.1, -1e4}) {
      LeftCase c{block, decay};
      c.block.name += decay == 0 ? "" : decay < -1 ? "_strong_decay" : "_decay";
      cases.push_back(c);
    }
  }
  return cases;
}

class LeftTest : public KernelsTest, public ::testing::WithParamInterface<LeftCase> {
 protected:
  Values log_decays() const {
    const LeftCase& c = GetParam();
    Values decays({1, 1, c.block.H, 1});
    for (std::int64_t h = 0; h < c.block.H; ++h) {
      decays.at(0, 0, h, 0) = static_cast<float>(c.decay * static_cast<double>(h + 1));
    }
    return decays;
  }
  // With alternating ids: equal ones are not always one document.
  MaskTerms mask() {
    constexpr std::int64_t kPositions = 400;
    const BlockCase& c = GetParam().block;
    MaskTerms terms{c.band, {}};
    if (c.segment_length == 0) return terms;
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < c.B * kPositions; ++i) {
      ids.push_back(segment_of(c, i / kPositions, i % kPositions) % 2);
    }
    terms.segments = gpu_.put_ids(c.B, kPositions, ids);
    return terms;
  }
  // An f32 tensor of kBefore.
  Tensor holding(const Values& like) {
    return gpu_.put(Values(like.shape, kBefore), DType::kF32, GetParam().block.placement);
  }

  GpuFixture gpu_;
};

}  // namespace sp::test
