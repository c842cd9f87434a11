// A platform: the machine that a simulation predicts, read from experiments/platforms/<name>.toml.
// Every number carries its source; what was fitted says on which rows (calibration record).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "harness/config/config.hpp"
#include "reference/problem/dtype.hpp"

namespace sp {

// How fast kernels run on a device, as shares of its peaks. Few parameters, each quoted or fitted.
struct KernelModel {
  double attention_forward = 1;   // share of peak flops of a large rectangular block
  double attention_backward = 1;  // the same, backward
  double diagonal = 1;            // factor on both for blocks that the mask cuts
  double half_rows = 0;           // query rows times heads at which half of that is reached
  double matrix = 1;              // share of peak of the other matrix products (linear, scores)
  double memory = 1;              // share of memory bandwidth of kernels that it bounds
  double launch_s = 0;            // per kernel, before it runs
  // Bytes that a merge of partial results moves, in those of one fused kernel: above 1 where a
  // framework runs it as several elementwise kernels. What is above 1 is then also moved to add the
  // gradients of a block to their sums, which a fused backward kernel does by itself.
  double merge_traffic = 1;
  std::int64_t query_tile = 1, key_tile = 1;  // work of a cut block is skipped in such tiles
};

struct Device {
  std::string name;
  double memory_bytes = 0;
  double memory_bandwidth = 0;           // bytes/s
  double f32_flops = 0, half_flops = 0;  // peak per second, f32 and bf16/f16
  KernelModel kernels;
  double peak(DType dtype) const { return size_of(dtype) >= 4 ? f32_flops : half_flops; }
};

// How communication runs on the devices, apart from the wires.
struct CommModel {
  double operation_s = 0;        // from a post until data flow: launch and handshake
  double step_s = 0;             // per step of a collective, after the first
  double channel_bandwidth = 0;  // bytes/s that one communicator's messages of one device reach
                                 // per direction; 0: the wires alone
  // Bytes/s times peers: a device that sends to k > 1 others in one all-to-all reaches at most this
  // over k, all messages together; 0: no such loss. Devices without direct copies to each other.
  double fan_bandwidth = 0;
  // Share of a device's compute speed that is left while 1, 2, ... communicators move its data;
  // the last holds for more. Empty: 1.
  std::vector<double> compute_share;
};

enum class Wiring : std::uint8_t {
  kSwitch,  // ports of the devices into a non-blocking switch
  kMesh,    // ports, and a wire per pair of devices of a node
  kPcie,    // ports, groups of devices under one bridge, one uplink per group and direction
  kTorus,   // wires to the neighbours on each axis; messages take the shorter way, axis by axis
};

struct Node {
  int devices = 1;
  Wiring wiring = Wiring::kSwitch;
  double port_bandwidth = 0;    // bytes/s per device and direction
  double pair_bandwidth = 0;    // kMesh: per pair and direction
  int group = 0;                // kPcie: devices under one bridge
  double uplink_bandwidth = 0;  // kPcie: per group and direction, shared by messages that leave it
  double latency_s = 0;         // between devices of a node
};

// Between nodes; a full bisection unless it is a torus.
struct Fabric {
  int nodes = 1;     // that there are
  int adapters = 0;  // per node; devices share them evenly, consecutive ones one adapter
  double adapter_bandwidth = 0;  // bytes/s per direction
  double latency_s = 0;
};

struct Torus {
  std::vector<int> extents;   // devices per axis
  double wire_bandwidth = 0;  // bytes/s per wire and direction
  double latency_s = 0;       // per hop
};

struct Platform {
  std::string name, title;
  Device device;
  CommModel comm;
  Node node;
  Fabric fabric;
  Torus torus;  // Wiring::kTorus
  // Largest relative error of this platform's calibration on rows that were not fitted; every
  // prediction carries it. `band_source` says which rows, or that there are none.
  double band = 0;
  std::string band_source;
  std::vector<Quantity> quantities;  // all of them, for listing
  std::string file, verbatim;

  int devices() const;
};

// Throws Error(kUsage) with file, line, key and what is allowed.
Platform load_platform(const std::string& path);
// experiments/platforms/<name>.toml of the source tree, or a path if it has a slash or ends in .toml.
Platform find_platform(const std::string& name);
std::vector<std::string> platform_names();

// Where messages between devices run: an index into `links` per wire or port that they cross.
struct WireMap {
  struct Link {
    std::string name;
    double bandwidth = 0;  // bytes/s
  };
  std::vector<Link> links;
  int devices = 0;
  std::vector<std::vector<int>> routes;  // [from * devices + to]; empty for a device itself
  std::vector<double> latency_s;         // the same index
  const std::vector<int>& route(int from, int to) const;
  double latency(int from, int to) const;
};
// Of the first `devices` devices.
WireMap wire(const Platform& platform, int devices);

}  // namespace sp
