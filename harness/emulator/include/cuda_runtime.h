// The CUDA runtime of the emulator: found instead of NVIDIA's header by sources that are compiled
// against it. Everything lives in sp::emulator, so that both can be linked into one program.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define SP_EMULATOR 1

#include "harness/emulator/device.hpp"        // what kernels call
#include "harness/emulator/runtime_api.hpp"   // what the host calls
#include "harness/emulator/vector_types.hpp"  // dim3, float4, ...; function specifiers

using namespace sp::emulator;  // NOLINT: CUDA's names are global
