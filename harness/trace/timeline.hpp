// Who did what when: spans of compute, sends and receives per rank, from simulated or real runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "harness/run/backend.hpp"

namespace sp {

enum class TraceLane : std::uint8_t { kCompute, kSend, kReceive, kWait };

struct Span {
  int rank = 0;
  TraceLane lane = TraceLane::kCompute;
  std::string name;  // kernel, or tensor of the message
  double start_s = 0, end_s = 0;
  std::int64_t bytes = 0;  // of a message
  std::int64_t flops = 0;  // of a kernel
  int step = 0;            // of the algorithm, from the label
  int peer = -1;           // of a message
  int channel = 0;         // communicator of the rank, in order of its making
};

// Adding is safe from several threads.
class Timeline {
 public:
  explicit Timeline(int devices_per_node = 0) : devices_per_node_(devices_per_node) {}
  void add(Span span);
  std::vector<Span> take();                                   // sorted by rank, lane, start
  int devices_per_node() const { return devices_per_node_; }  // 0: all in one node

 private:
  std::mutex mutex_;
  std::vector<Span> spans_;
  int devices_per_node_;
};

// Puts recorders around a rank's communicator and kernels (wall clock, for `thread` and `mpi`).
// The timeline must outlive every run with the rig.
Rig recording(Rig rig, Timeline& timeline);

// Chrome-trace JSON, which Perfetto opens: a process per node, a thread per rank and lane, spans of
// a lane never overlap (concurrent messages get further lanes), flows from send to receive,
// counters of bytes in flight. Atomic. `kind` is "measured" or "simulated".
void write_chrome_trace(const std::string& path, const std::vector<Span>& spans,
                        int devices_per_node, const std::string& title, const std::string& kind);

}  // namespace sp
