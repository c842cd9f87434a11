// The truth about Linformer: softmax over keys and values that are projected along the length.
//
// A projection is a sum over tokens, and what it hands on carries that of its terms:
// size(sum a x)^2 = sum a^2 (size(x)^2 + w^2 x^2) + walk^2 + w^2 range^2, with the letters of softmax_truth.hpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/compare/softmax_truth.hpp"

namespace sp {

SoftmaxTruth projected_truth(const Problem& problem, const Inputs& inputs);

}  // namespace sp
