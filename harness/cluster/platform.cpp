// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/platform.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "harness/config/nearest.hpp"
#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr int kMostDevices = 4096;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Reads the quantities of one file and keeps them for listing.
class Reader {
 public:
  explicit Reader(std::vector<Quantity>& quantities) : quantities_(quantities) {}
  double bytes(const Config& table, const char* key) {
    return read(table, key, Dimension::kBytes, 0x1p20, kInfinity);
  }
  double bandwidth(const Config& table, const char* key) {
    return read(table, key, Dimension::kBandwidth, 1, kInfinity);
  }
  double flop_rate(const Config& table, const char* key) {
    return read(table, key, Dimension::kFlopRate, 1, kInfinity);
  }
  double seconds(const Config& table, const char* key) {
    return read(table, key, Dimension::kSeconds, 0, 1);
  }
  double share(const Config& table, const char* key) {
    return read(table, key, Dimension::kPure, 1e-3, 1);
  }
  double factor(const Config& table, const char* key) {
    return read(table, key, Dimension::kPure, 1, 100);
  }
  double rows(const Config& table, const char* key) {
    return read(table, key, Dimension::kPure, 0, 1e9);
  }

 private:
  double read(const Config& table, const char* key, Dimension dimension, double least,
              double most) {
    quantities_.push_back(table.quantity(key, dimension, least, most));
    return quantities_.back().value;
  }
  std::vector<Quantity>& quantities_;
};

int count(const Config& table, const char* key, int least, int most) {
  return static_cast<int>(table.integer(key, least, most));
}

KernelModel read_kernels(const Config& table, Reader& read) {
  KernelModel kernels;
  kernels.attention_forward = read.share(table, "attention_forward");
  kernels.attention_backward = read.share(table, "attention_backward");
  kernels.diagonal = read.share(table, "diagonal");
  kernels.half_rows = read.rows(table, "half_rows");
  kernels.matrix = read.share(table, "matrix");
  kernels.memory = read.share(table, "memory");
  kernels.launch_s = read.seconds(table, "launch");
  if (table.has("merge_traffic")) kernels.merge_traffic = read.factor(table, "merge_traffic");
  kernels.query_tile = table.integer("query_tile", 1, 65536);
  kernels.key_tile = table.integer("key_tile", 1, 65536);
  return kernels;
}

Device read_device(const Config& table, Reader& read) {
  Device device;
  device.name = table.text("name");
  device.memory_bytes = read.bytes(table, "memory");
  device.memory_bandwidth = read.bandwidth(table, "memory_bandwidth");
  device.f32_flops = read.flop_rate(table, "f32_flops");
  device.half_flops = read.flop_rate(table, "half_flops");
  device.kernels = read_kernels(table.table("kernels"), read);
  return device;
}

CommModel read_comm(const Config& table, Reader& read) {
  CommModel comm;
  comm.operation_s = read.seconds(table, "operation");
  comm.step_s = read.seconds(table, "step");
  if (table.has("channel_bandwidth")) {
    comm.channel_bandwidth = read.bandwidth(table, "channel_bandwidth");
  }
  if (table.has("fan_bandwidth")) comm.fan_bandwidth = read.bandwidth(table, "fan_bandwidth");
  for (const char* key : {"compute_share_1", "compute_share_2", "compute_share_3"}) {
    if (!table.has(key)) break;
    comm.compute_share.push_back(read.share(table, key));
  }
  return comm;
}

struct WiringName {
  const char* name;
  Wiring wiring;
};
constexpr WiringName kWirings[] = {{"switch", Wiring::kSwitch},
                                   {"mesh", Wiring::kMesh},
                                   {"pcie", Wiring::kPcie},
                                   {"torus", Wiring::kTorus}};

Wiring read_wiring(const Config& table) {
  std::vector<std::string> allowed;
  for (const WiringName& each : kWirings) allowed.emplace_back(each.name);
  const std::string name = table.choice("wiring", allowed);
  return std::find_if(std::begin(kWirings), std::end(kWirings),
                      [&](const WiringName& each) { return each.name == name; })
      ->wiring;
}

// Keys that mean nothing with this wiring are refused rather than ignored.
void refuse_foreign_keys(const Config& table, Wiring wiring) {
  struct Foreign {
    const char* key;
    std::vector<Wiring> with;
  };
  const Foreign all[] = {
      {"port_bandwidth", {Wiring::kSwitch, Wiring::kMesh, Wiring::kPcie}},
      {"latency", {Wiring::kSwitch, Wiring::kMesh, Wiring::kPcie}},
      {"pair_bandwidth", {Wiring::kMesh}},
      {"group", {Wiring::kPcie}},
      {"uplink_bandwidth", {Wiring::kPcie}},
  };
  for (const Foreign& foreign : all) {
    if (!table.has(foreign.key)) continue;
    if (std::find(foreign.with.begin(), foreign.with.end(), wiring) != foreign.with.end()) continue;
    std::vector<std::string> names;
    for (const WiringName& each : kWirings) {
      const bool fits =
          std::find(foreign.with.begin(), foreign.with.end(), each.wiring) != foreign.with.end();
      if (fits) names.push_back(fmt::format("\"{}\"", each.name));
    }
    table.refuse(foreign.key, fmt::format("it has no effect with this wiring; allowed: with {}",
                                          fmt::join(names, ", ")));
  }
}

Node read_node(const Config& table, Reader& read) {
  Node node;
  node.devices = count(table, "devices", 1, kMostDevices);
  node.wiring = read_wiring(table);
  refuse_foreign_keys(table, node.wiring);
  if (node.wiring == Wiring::kTorus) return node;
  node.port_bandwidth = read.bandwidth(table, "port_bandwidth");
  node.latency_s = read.seconds(table, "latency");
  if (node.wiring == Wiring::kMesh) node.pair_bandwidth = read.bandwidth(table, "pair_bandwidth");
  if (node.wiring == Wiring::kPcie) {
    node.group = count(table, "group", 1, node.devices);
    if (node.devices % node.group != 0) {
      table.refuse("group", fmt::format("groups of {} do not divide {} devices; allowed: divisors",
                                        node.group, node.devices));
    }
    // With one group nothing leaves it, unless there is a fabric; the number is asked for anyway.
    node.uplink_bandwidth = read.bandwidth(table, "uplink_bandwidth");
  }
  return node;
}

Fabric read_fabric(const Config& table, const Node& node, Reader& read) {
  Fabric fabric;
  if (2 * node.devices > kMostDevices) {
    table.refuse("nodes", fmt::format("nodes of {} devices cannot be joined; allowed: a machine of "
                                      "{} devices at most",
                                      node.devices, kMostDevices));
  }
  fabric.nodes = count(table, "nodes", 2, kMostDevices / node.devices);
  fabric.adapters = count(table, "adapters", 1, node.devices);
  if (node.devices % fabric.adapters != 0) {
    table.refuse("adapters", fmt::format("{} adapters do not divide {} devices; allowed: divisors",
                                         fabric.adapters, node.devices));
  }
  fabric.adapter_bandwidth = read.bandwidth(table, "adapter_bandwidth");
  fabric.latency_s = read.seconds(table, "latency");
  return fabric;
}

Torus read_torus(const Config& table, const Node& node, Reader& read) {
  Torus torus;
  std::int64_t product = 1;
  for (const std::int64_t extent : table.integers("extents", 1, kMostDevices)) {
    torus.extents.push_back(static_cast<int>(extent));
    product = std::min<std::int64_t>(product * extent, kMostDevices + 1);
  }
  if (product != node.devices) {
    table.refuse("extents", fmt::format("they do not multiply to the node's devices; allowed: a "
                                        "product of {}",
                                        node.devices));
  }
  torus.wire_bandwidth = read.bandwidth(table, "wire_bandwidth");
  torus.latency_s = read.seconds(table, "latency");
  return torus;
}

std::filesystem::path platform_folder() { return shipped("experiments/platforms"); }

}  // namespace

int Platform::devices() const { return node.devices * fabric.nodes; }

Platform load_platform(const std::string& path) {
  const Config config = load_config(path);
  Platform platform;
  platform.name = std::filesystem::path(path).stem().string();
  platform.file = path;
  platform.verbatim = config.verbatim();
  platform.title = config.text("title");
  Reader read(platform.quantities);
  platform.device = read_device(config.table("device"), read);
  platform.comm = read_comm(config.table("comm"), read);
  platform.node = read_node(config.table("node"), read);
  const bool torus = platform.node.wiring == Wiring::kTorus;
  if (torus && config.has("fabric")) {
    config.refuse("fabric", "a torus spans the machine; allowed: no fabric with this wiring");
  }
  if (!torus && config.has("torus")) {
    config.refuse("torus", "the node is no torus; allowed: with wiring \"torus\"");
  }
  if (torus) platform.torus = read_torus(config.table("torus"), platform.node, read);
  if (config.has("fabric")) {
    platform.fabric = read_fabric(config.table("fabric"), platform.node, read);
  }
  const Config calibration = config.table("calibration");
  platform.band = calibration.number("band", 0, 10);
  platform.band_source = calibration.text("source");
  if (platform.band_source.empty()) {
    calibration.refuse("source",
                       "it is empty; allowed: which rows the band is from, or that there "
                       "are none");
  }
  config.finish();
  return platform;
}

std::vector<std::string> platform_names() {
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(platform_folder(), error)) {
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  }
  if (error) {
    throw Error(ErrorKind::kEnvironment, fmt::format("{}: cannot list the platforms: {}",
                                                     platform_folder().string(), error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

Platform find_platform(const std::string& name) {
  if (name.find('/') != std::string::npos || name.ends_with(".toml")) return load_platform(name);
  const std::vector<std::string> names = platform_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    const std::string near = nearest(name, names);
    throw Error(ErrorKind::kUsage,
                fmt::format("unknown platform '{}'{}; allowed: {}, or the path of a .toml file",
                            name, near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near),
                            fmt::join(names, ", ")));
  }
  return load_platform((platform_folder() / (name + ".toml")).string());
}

}  // namespace sp
