// NVTX of the emulator: ranges give kernels their names.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/emulator/runtime_api.hpp"

using namespace sp::emulator;  // NOLINT: NVTX's names are global
