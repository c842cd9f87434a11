// A rank's way into a world of GPUs, whichever transport carries its messages.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "optimized/comm/communicator.hpp"

namespace sp {

// What communication cost a rank whose device runs behind its host, from events of the device.
class CommunicationMeter {
 public:
  struct Cost {
    double exposed_s = 0;  // that the compute stream stood waiting: what no computation hides
    double total_s = 0;    // of all operations, on their own streams
  };
  virtual ~CommunicationMeter() = default;
  virtual void measure(bool enabled) = 0;
  virtual Cost take() = 0;  // since the last call; waits for the compute stream
};

struct GpuWorld {
  std::unique_ptr<Communicator> comm;
  std::shared_ptr<CommunicationMeter> meter;  // of all communicators of the rank
};

}  // namespace sp
