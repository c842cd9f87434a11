// The emulated machine as its user sees it: which GPUs there are, how adversarial it is, what it
// counted, which faults it plants.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/emulator/fault.hpp"

namespace sp::emulator {

// A GPU by name: its limits, as published.
struct GpuModel {
  const char* name;               // "A100", "L20", "H100", "B200"
  int major = 8, minor = 0;       // compute capability
  int processors = 108;           // streaming multiprocessors
  int shared_per_block = 166912;  // dynamic, opt-in, bytes
  int shared_per_processor = 167936;
  int registers_per_processor = 65536;
  int threads_per_processor = 2048;
  int blocks_per_processor = 32;
  int clock_khz = 1410000;  // boost
  int memory_clock_khz = 1593000, memory_bus_bits = 5120;
  int l2_bytes = 40 << 20;
};
const std::vector<GpuModel>& gpu_models();

struct Settings {
  int devices = 64;
  std::string model = "A100";
  std::uint64_t seed = 1;  // of lane, block, stream and summation orders
  bool peers = true;       // devices reach each other's memory
};
// Starts over: no other thread may use a device. Never called: the defaults hold.
void configure(const Settings& settings);

// Registers per thread of a kernel, as ptxas reported them; a launch that needs more than the model
// has is refused.
void declare_registers(const std::string& kernel, int registers);

// The story of the first fault since the last call, and forgets it; empty: none. Devices recover.
struct FaultReport {
  bool found = false;
  FaultKind kind = FaultKind::kApi;
  std::string what;
};
FaultReport take_fault();

// What the kernels did since the last call, by kernel name: one row per name.
struct KernelCounts {
  std::string kernel;
  std::int64_t launches = 0;
  std::int64_t shared_requests = 0;    // warp-wide accesses to shared memory
  std::int64_t shared_wavefronts = 0;  // what they take: more than requests are bank conflicts
  std::int64_t global_requests = 0;
  std::int64_t global_sectors = 0;  // of 32 bytes
};
void count_accesses(bool enabled);
std::vector<KernelCounts> take_counts();

// What lives on a device, and what was alive when devices were reset, since the last call.
struct Objects {
  int streams = 0, events = 0, allocations = 0, pinned = 0;
  int total() const { return streams + events + allocations + pinned; }
};
Objects live_objects(int device);
Objects take_leaks();

// The host address behind a device address, for tests and planted faults; the device must be idle
// (synchronised). Marks `bytes` as written if `writes`.
std::byte* host_view(const void* device_address, std::int64_t bytes, bool writes);

// Planted faults: changes one primitive of the machine, everywhere or in kernels whose name begins
// with `kernel`. Used by the GPU mutants; one at a time, empty id: none.
struct Sabotage {
  std::string id;      // sabotages() lists them
  std::string kernel;  // prefix
};
struct SabotageInfo {
  const char* id;
  const char* what;
};
const std::vector<SabotageInfo>& sabotages();
void plant(const Sabotage& sabotage);

}  // namespace sp::emulator
