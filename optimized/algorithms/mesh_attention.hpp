// Mesh-Attention: every rank computes a tile of queries and keys. See mesh_attention.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kMeshAttention;

}  // namespace sp
