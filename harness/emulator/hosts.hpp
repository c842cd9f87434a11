// Host threads that use devices: which device is theirs, how they wait, when all are stuck.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <mutex>

#include "harness/emulator/streams.hpp"

namespace sp::emulator {

int current_device();
void set_current_device(int ordinal);

// This thread takes part from now on until it ends or leaves: a deadlock needs all of them.
void enter_host();
void leave_host();
void forget_hosts();

// Something moved somewhere.
void note_progress();

// Runs the device until all of that is done, or until its error. `lock` holds device.mutex.
cudaError_t run_until(Device& device, std::unique_lock<std::mutex>& lock, const Past& what);
// The same, and it comes before all that the host posts from now on.
cudaError_t wait_for(Device& device, std::unique_lock<std::mutex>& lock, const Past& what);
// One step towards it; cudaErrorNotReady after a short sleep if there was nothing to do.
cudaError_t ask_for(Device& device, std::unique_lock<std::mutex>& lock, const Past& what);

// The body of a call for a device, the current one unless named: its sticking error first, then
// f(device, lock); ApiError becomes the error it names. A call that `releases` something does so in
// any case.
cudaError_t on_device(Device& device, const char* call,
                      const std::function<cudaError_t(Device&, std::unique_lock<std::mutex>&)>& f,
                      bool releases = false);
cudaError_t on_device(const char* call,
                      const std::function<cudaError_t(Device&, std::unique_lock<std::mutex>&)>& f,
                      bool releases = false);
// Notes the thread's last error.
cudaError_t returned(cudaError_t error);

}  // namespace sp::emulator
