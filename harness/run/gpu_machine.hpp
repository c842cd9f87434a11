// One rank's machine on a GPU, with the rig of a test around it. Compiled twice, like all GPU code.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "harness/run/backend.hpp"
#include "optimized/comm/gpu_world.hpp"
#include "optimized/kernels/cuda/gpu.hpp"

namespace sp::SP_GPU {

// What a back-end says where there is no device: one line, Error(kEnvironment).
[[noreturn]] void refuse_without_gpu();

// Throws Error(kUsage) for what only works where ranks compute in host memory.
void check_rig(const Rig& rig);

// Runs the body on the kernels and the memory of the GPU, and waits for all that it enqueued.
void run_on_gpu(Gpu& gpu, Communicator& world, CommunicationMeter& meter, const Rig& rig,
                const std::function<void(Machine&)>& body);

}  // namespace sp::SP_GPU
