// What recording() puts around one rank: a communicator and kernels that add a span for everything
// that passes. Clock: the monotonic one of the host, which its processes share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "harness/trace/timeline.hpp"

namespace sp {

double trace_clock_s();

// Message    From its post to the end of the wait for it, which is when the rank may use it: when it
//            arrived before that, nobody saw. Peers are ranks of the world, also in communicators
//            that were split off.
// Collective One span in each direction, without a peer: sent bytes as Communicator counts them,
//            received bytes as the buffers hold from others.
// Owns the communicator.
std::unique_ptr<Communicator> recorded_communicator(std::unique_ptr<Communicator> inner,
                                                    Timeline& timeline);
std::unique_ptr<Communicator> recorded_communicator(Communicator& inner, Timeline& timeline);

// Kernel     From its call to its return. `owned` is inner, or null if somebody else owns it.
std::unique_ptr<Kernels> recorded_kernels(Kernels& inner, std::unique_ptr<Kernels> owned, int rank,
                                          Timeline& timeline);

}  // namespace sp
