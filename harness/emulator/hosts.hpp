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

// Runs the device until done() or its error. `lock` holds device.mutex.
cudaError_t wait_for(Device& device, std::unique_lock<std::mutex>& lock,
                     const std::function<bool()>& done);
// One step towards done(); cudaErrorNotReady after a short sleep if there was nothing to do.
cudaError_t ask_for(Device& device, std::unique_lock<std::mutex>& lock,
                    const std::function<bool()>& done);

// The body of a call for the current device: its sticking error first, then f(device, lock);
// ApiError becomes the error it names. A call that `releases` something does so in any case.
cudaError_t on_device(const char* call,
                      const std::function<cudaError_t(Device&, std::unique_lock<std::mutex>&)>& f,
                      bool releases = false);
// Notes the thread's last error.
cudaError_t returned(cudaError_t error);

}  // namespace sp::emulator
