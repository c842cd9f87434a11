// A small cluster with round numbers, and what its ranks do in tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "harness/cluster/simulation.hpp"

namespace sp::test {

constexpr double kMemoryBandwidth = 1e12, kPort = 1e9, kLatency = 1e-5;  // bytes/s, s
// Times are compared this exactly: the engine takes moments closer than 1 ns for one.
constexpr double kExact = 5e-9;

// One node of `devices`, ports into a switch; kernels take no time to launch.
inline Platform cluster_of(int devices) {
  Platform platform;
  platform.name = "test";
  platform.device = {"test", 1e12, kMemoryBandwidth, 1e13, 1e14, {}};
  platform.node.devices = devices;
  platform.node.port_bandwidth = kPort;
  platform.node.latency_s = kLatency;
  return platform;
}

// Messages that take no time at all.
inline Platform perfect_cluster_of(int devices) {
  Platform platform = cluster_of(devices);
  platform.node.port_bandwidth = 1e30;
  platform.node.latency_s = 0;
  return platform;
}

inline Tensor bytes(Machine& machine, std::int64_t count, const char* name = "k") {
  return machine.memory.allocate(DType::kF32, {count / 4, 1, 1, 1}, name);
}

// A kernel of so many seconds, bound by memory.
inline void compute(Machine& machine, double seconds) {
  machine.kernels.fill(bytes(machine, static_cast<std::int64_t>(seconds * kMemoryBandwidth)), 0);
}

inline Pending send(Communicator& comm, const Tensor& data, int to, int step = 0) {
  return comm.exchange({{to, data, {"k", step}}}, {});
}
inline Pending receive(Communicator& comm, const Tensor& data, int from, int step = 0) {
  return comm.exchange({}, {{from, data, {"k", step}}});
}

inline double time_of(const Platform& platform, int ranks,
                      const std::function<void(Machine&)>& body) {
  return run_phantom(platform, ranks, body).time_s;
}

// The text of the Error that f throws; a failure if it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

inline bool says(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

// A problem that every algorithm of the family serves on any world with as many heads as ranks.
inline Problem problem_of(const Algorithm& algorithm, const Shape& shape) {
  Problem problem;
  problem.shape = shape;
  problem.dtype = DType::kBF16;
  problem.scale = default_scale(shape);
  if (algorithm.family == Family::kProjectedSoftmax) {
    problem.projected = 64;
    return problem;
  }
  problem.mask.causal = true;
  if (algorithm.family == Family::kLinear || algorithm.family == Family::kHybrid) {
    problem.module = Module::kBasic;
  }
  if (algorithm.family == Family::kHybrid) problem.layers = "LLN";
  return problem;
}

}  // namespace sp::test
