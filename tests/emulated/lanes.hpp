// Lambdas as kernels, for the emulator's own tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "harness/emulator/fiber.hpp"
#include "harness/emulator/machine.hpp"
#include "optimized/kernels/cuda/device.cuh"

namespace sp::emulated {

using emulator::FaultKind;

struct Lanes {
  unsigned threads = 32;
  int shared_bytes = 0;
  unsigned blocks = 1;
  std::uint64_t seed = 1;
};

// The tests' own books are kept by lanes without barriers, which TSan must not see.
inline std::function<void()> unseen(std::function<void()> body) {
  return [body = std::move(body)] {
    const emulator::Unseen guard;
    body();
  };
}

inline emulator::KernelLaunch lanes_launch(const Lanes& shape, std::function<void()> body) {
  emulator::KernelLaunch launch;
  launch.name = "under_test";
  launch.grid = dim3(shape.blocks);
  launch.block = dim3(shape.threads);
  launch.shared_bytes = static_cast<std::size_t>(shape.shared_bytes);
  launch.seed = shape.seed;
  launch.body = std::move(body);
  return launch;
}

inline void run_lanes(const Lanes& shape, std::function<void()> body) {
  emulator::run_kernel(lanes_launch(shape, unseen(std::move(body))));
}

// For whatever order the adversary chooses.
constexpr std::uint64_t kSeeds = 24;

// The fault's story holds every one of these words.
inline void expect_story(const std::string& story, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    EXPECT_NE(story.find(word), std::string::npos) << "'" << word << "' is not in: " << story;
  }
}

inline void expect_fault(FaultKind kind, const std::vector<std::string>& words, Lanes shape,
                         const std::function<void()>& body) {
  for (shape.seed = 1; shape.seed <= kSeeds; ++shape.seed) {
    try {
      run_lanes(shape, body);
      ADD_FAILURE() << "no fault with seed " << shape.seed;
      return;
    } catch (const emulator::Fault& fault) {
      EXPECT_STREQ(name_of(fault.kind()), name_of(kind)) << fault.what();
      expect_story(fault.what(), words);
    }
  }
}

inline void expect_no_fault(Lanes shape, const std::function<void()>& body) {
  for (shape.seed = 1; shape.seed <= kSeeds; ++shape.seed) {
    EXPECT_NO_THROW(run_lanes(shape, body)) << "seed " << shape.seed;
  }
}

}  // namespace sp::emulated
