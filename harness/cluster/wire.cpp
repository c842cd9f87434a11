// Routes of messages: which wires and ports each of them crosses.
//
// Between nodes  a message goes from its device's adapter to the other's. NVLink ports and switches
//                are not on that way; PCIe ports are, and the uplink of a group too unless every
//                group has adapters of its own.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>
#include <tuple>

#include "harness/cluster/platform.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

enum class Kind : std::uint8_t {
  kPortOut,
  kPortIn,
  kPair,
  kUplinkOut,
  kUplinkIn,
  kAdapterOut,
  kAdapterIn,
  kWire
};

// The links that routes cross, each made when the first route needs it.
class Links {
 public:
  explicit Links(std::vector<WireMap::Link>& links) : links_(links) {}
  template <class Name>
  int find(Kind kind, int a, int b, double bandwidth, Name name) {
    const auto [found, is_new] = index_.try_emplace({kind, a, b}, static_cast<int>(links_.size()));
    if (is_new) links_.push_back({name(), bandwidth});
    return found->second;
  }
  int find(Kind kind, int a, double bandwidth, const char* format) {
    return find(kind, a, 0, bandwidth, [&] { return fmt::format(fmt::runtime(format), a); });
  }

 private:
  std::vector<WireMap::Link>& links_;
  std::map<std::tuple<Kind, int, int>, int> index_;
};

std::vector<int> route_in_node(const Node& node, int from, int to, Links& links) {
  std::vector<int> route;
  route.push_back(links.find(Kind::kPortOut, from, node.port_bandwidth, "device {} out"));
  if (node.wiring == Wiring::kMesh) {
    route.push_back(links.find(Kind::kPair, from, to, node.pair_bandwidth,
                               [&] { return fmt::format("device {} to device {}", from, to); }));
  }
  // Nodes hold whole groups, so that a device's group follows from its number.
  if (node.wiring == Wiring::kPcie && from / node.group != to / node.group) {
    route.push_back(
        links.find(Kind::kUplinkOut, from / node.group, node.uplink_bandwidth, "group {} up"));
    route.push_back(
        links.find(Kind::kUplinkIn, to / node.group, node.uplink_bandwidth, "group {} down"));
  }
  route.push_back(links.find(Kind::kPortIn, to, node.port_bandwidth, "device {} in"));
  return route;
}

std::vector<int> route_between_nodes(const Platform& platform, int from, int to, Links& links) {
  const Node& node = platform.node;
  const Fabric& fabric = platform.fabric;
  const int sharing = node.devices / fabric.adapters;
  const bool pcie = node.wiring == Wiring::kPcie;
  const bool uplinks = pcie && sharing > node.group;
  std::vector<int> route;
  if (pcie) {
    route.push_back(links.find(Kind::kPortOut, from, node.port_bandwidth, "device {} out"));
  }
  if (uplinks) {
    route.push_back(
        links.find(Kind::kUplinkOut, from / node.group, node.uplink_bandwidth, "group {} up"));
  }
  route.push_back(
      links.find(Kind::kAdapterOut, from / sharing, fabric.adapter_bandwidth, "adapter {} out"));
  route.push_back(
      links.find(Kind::kAdapterIn, to / sharing, fabric.adapter_bandwidth, "adapter {} in"));
  if (uplinks) {
    route.push_back(
        links.find(Kind::kUplinkIn, to / node.group, node.uplink_bandwidth, "group {} down"));
  }
  if (pcie) {
    route.push_back(links.find(Kind::kPortIn, to, node.port_bandwidth, "device {} in"));
  }
  return route;
}

// Device numbers count the last axis fastest. Of two ways of equal length the upward one is taken.
std::vector<int> route_in_torus(const Torus& torus, int from, int to, Links& links) {
  std::vector<int> route;
  int here = from, stride = 1;
  for (std::size_t axis = torus.extents.size(); axis-- > 0;) {
    const int extent = torus.extents[axis];
    const int target = to / stride % extent;
    const int up = (target - here / stride % extent + extent) % extent;
    const int step = 2 * up <= extent ? 1 : -1;
    for (int at = here / stride % extent; at != target;) {
      const int direction = 2 * static_cast<int>(axis) + (step > 0 ? 0 : 1);
      route.push_back(links.find(Kind::kWire, here, direction, torus.wire_bandwidth, [&] {
        return fmt::format("device {} axis {}{}", here, axis, step > 0 ? '+' : '-');
      }));
      const int next = (at + step + extent) % extent;
      here += (next - at) * stride;
      at = next;
    }
    stride *= extent;
  }
  return route;
}

}  // namespace

const std::vector<int>& WireMap::route(int from, int to) const {
  SP_CHECK(from >= 0 && from < devices && to >= 0 && to < devices, "no such device");
  return routes[static_cast<std::size_t>(from) * static_cast<std::size_t>(devices) +
                static_cast<std::size_t>(to)];
}

double WireMap::latency(int from, int to) const {
  SP_CHECK(from >= 0 && from < devices && to >= 0 && to < devices, "no such device");
  return latency_s[static_cast<std::size_t>(from) * static_cast<std::size_t>(devices) +
                   static_cast<std::size_t>(to)];
}

WireMap wire(const Platform& platform, int devices) {
  if (devices < 1 || devices > platform.devices()) {
    throw Error(ErrorKind::kUsage, fmt::format("platform {} has no {} devices; allowed: 1 to {}",
                                               platform.name, devices, platform.devices()));
  }
  WireMap map;
  map.devices = devices;
  Links links(map.links);
  const Node& node = platform.node;
  for (int from = 0; from < devices; ++from) {
    for (int to = 0; to < devices; ++to) {
      std::vector<int> route;
      double latency = 0;
      if (from == to) {
        // Nothing crosses a wire.
      } else if (node.wiring == Wiring::kTorus) {
        route = route_in_torus(platform.torus, from, to, links);
        latency = platform.torus.latency_s * static_cast<double>(route.size());
      } else if (from / node.devices == to / node.devices) {
        route = route_in_node(node, from, to, links);
        latency = node.latency_s;
      } else {
        route = route_between_nodes(platform, from, to, links);
        latency = platform.fabric.latency_s;
      }
      map.routes.push_back(std::move(route));
      map.latency_s.push_back(latency);
    }
  }
  return map;
}

}  // namespace sp
