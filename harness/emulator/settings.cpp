// GPU models, settings, and the machine that they make.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/nccl_world.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

std::mutex mutex;
Settings current;
const GpuModel* current_model = nullptr;
std::array<std::unique_ptr<Device>, kMaxDevices> machine;
std::array<std::atomic<Device*>, kMaxDevices> made{};
std::map<std::string, int> registers;
FaultReport first_fault;
Objects leaks;

constexpr int kKiB = 1024;

const GpuModel* find_model(const std::string& name) {
  for (const GpuModel& each : gpu_models()) {
    if (name == each.name) return &each;
  }
  std::string known;
  for (const GpuModel& each : gpu_models()) known += std::string(" ") + each.name;
  throw Fault(FaultKind::kApi, fmt::format("no GPU model is called {}; known:{}", name, known));
}

}  // namespace

// The limits of compute capabilities 8.0, 8.6, 8.9, 9.0 and 10.0 are those of the CUDA C++
// Programming Guide; processors, clocks, buses and caches those of NVIDIA's data sheets (SXM
// boards of the A100 80 GB, the H100 80 GB and the B200).
const std::vector<GpuModel>& gpu_models() {
  static const std::vector<GpuModel> models = {
      {"A100", 8, 0, 108, 163 * kKiB, 164 * kKiB, 65536, 2048, 32, 1410000, 1593000, 5120,
       40 << 20},
      {"A10", 8, 6, 72, 99 * kKiB, 100 * kKiB, 65536, 1536, 16, 1695000, 6251000, 384, 6 << 20},
      {"L20", 8, 9, 92, 99 * kKiB, 100 * kKiB, 65536, 1536, 24, 2520000, 9001000, 384, 96 << 20},
      {"H100", 9, 0, 132, 227 * kKiB, 228 * kKiB, 65536, 2048, 32, 1980000, 2619000, 5120,
       50 << 20},
      {"B200", 10, 0, 148, 227 * kKiB, 228 * kKiB, 65536, 2048, 32, 1965000, 3906000, 8192,
       126 << 20},
  };
  return models;
}

const Settings& settings() { return current; }

bool exists(int device) { return device >= 0 && device < settings().devices; }

bool modules_are_lazy() {
  const char* how = std::getenv("CUDA_MODULE_LOADING");
  return how == nullptr || std::string_view(how) != "EAGER";
}

const GpuModel& model() {
  const std::lock_guard lock(mutex);
  if (current_model == nullptr) current_model = find_model(current.model);
  return *current_model;
}

void configure(const Settings& wanted) {
  const GpuModel* found = find_model(wanted.model);
  if (wanted.devices < 0 || wanted.devices > kMaxDevices) {
    throw Fault(FaultKind::kApi, fmt::format("0 to {} devices can be emulated", kMaxDevices));
  }
  forget_hosts();
  forget_devices();
  forget_communicators();
  plant({});
  const std::lock_guard lock(mutex);
  current = wanted;
  current_model = found;
  registers.clear();
  first_fault = {};
  leaks = {};
}

Device& device(int ordinal) {
  std::atomic<Device*>& known = made.at(static_cast<std::size_t>(ordinal));
  if (Device* found = known.load(std::memory_order_acquire)) return *found;
  guard_arenas();
  const std::lock_guard lock(mutex);
  auto& place = machine[static_cast<std::size_t>(ordinal)];
  if (place == nullptr) place = std::make_unique<Device>(ordinal);
  known.store(place.get(), std::memory_order_release);
  return *place;
}

std::vector<Device*> devices() {
  std::vector<Device*> result;
  for (const auto& each : made) {
    if (Device* found = each.load(std::memory_order_acquire)) result.push_back(found);
  }
  return result;
}

void forget_devices() {
  for (auto& each : made) each = nullptr;
  for (auto& each : machine) each.reset();
}

void declare_registers(const std::string& kernel, int count) {
  const std::lock_guard lock(mutex);
  registers[kernel] = count;
}

int declared_registers(const std::string& kernel) {
  const std::lock_guard lock(mutex);
  const auto found = registers.find(kernel);
  return found == registers.end() ? 0 : found->second;
}

// ---- Faults ------------------------------------------------------------------------------------

void keep_fault(FaultKind kind, const std::string& what) {
  const std::lock_guard lock(mutex);
  if (!first_fault.found) first_fault = {true, kind, what};
}

void record_fault(const Fault& fault) { keep_fault(fault.kind(), fault.what()); }

FaultReport take_fault() {
  for (Device* each : devices()) {
    const std::lock_guard lock(each->mutex);
    each->recover();
  }
  const std::lock_guard lock(mutex);
  return std::exchange(first_fault, {});
}

std::string name_operation(int ordinal, std::uint32_t operation) {
  return device(ordinal).name_of_operation(operation);
}

// ---- Objects -----------------------------------------------------------------------------------

Objects live_objects(int ordinal) {
  Device& each = device(ordinal);
  const std::lock_guard lock(each.mutex);
  return each.objects();
}

void add_leaks(const Objects& objects) {
  const std::lock_guard lock(mutex);
  leaks.streams += objects.streams;
  leaks.events += objects.events;
  leaks.allocations += objects.allocations;
  leaks.pinned += objects.pinned;
}

Objects take_leaks() {
  const std::lock_guard lock(mutex);
  return std::exchange(leaks, {});
}

}  // namespace sp::emulator
