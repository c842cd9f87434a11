// Platforms: what ships is complete, routes follow the wiring, and impossible machines are refused.
// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/platform.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"
#include "tests/fuzz/read_bytes_as_platform.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

std::string read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string platform_text(const std::string& name) {
  return read(shipped("experiments/platforms/" + name).string());
}

// Names of the links that a message crosses.
std::vector<std::string> way(const WireMap& map, int from, int to) {
  std::vector<std::string> names;
  for (const int link : map.route(from, to)) {
    names.push_back(map.links[static_cast<std::size_t>(link)].name);
  }
  return names;
}

using Way = std::vector<std::string>;

class EveryPlatform : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Shipped, EveryPlatform, testing::ValuesIn(platform_names()),
                         [](const auto& each) { return each.param; });

TEST_P(EveryPlatform, LoadsAndSaysWhereItsNumbersComeFrom) {
  const Platform platform = find_platform(GetParam());
  EXPECT_EQ(platform.name, GetParam());
  EXPECT_FALSE(platform.title.empty());
  EXPECT_GE(platform.quantities.size(), 14u);
  for (const Quantity& quantity : platform.quantities) {
    EXPECT_FALSE(quantity.source.empty()) << quantity.key;
  }
  EXPECT_GT(platform.band, 0);
  EXPECT_FALSE(platform.band_source.empty());
  EXPECT_EQ(platform.verbatim, platform_text(GetParam() + ".toml"));
  EXPECT_GE(platform.device.half_flops, platform.device.f32_flops);
}

TEST_P(EveryPlatform, WiresEveryPairOfDevices) {
  const Platform platform = find_platform(GetParam());
  const int devices = std::min(platform.devices(), 32);
  const WireMap map = wire(platform, devices);
  for (const WireMap::Link& link : map.links) EXPECT_GT(link.bandwidth, 0) << link.name;
  std::set<std::string> names;
  for (const WireMap::Link& link : map.links) names.insert(link.name);
  EXPECT_EQ(names.size(), map.links.size());
  for (int from = 0; from < devices; ++from) {
    for (int to = 0; to < devices; ++to) {
      EXPECT_EQ(map.route(from, to).empty(), from == to);
      EXPECT_EQ(map.latency(from, to) > 0, from != to);
      EXPECT_EQ(map.latency(from, to), map.latency(to, from));
      const std::set<int> once(map.route(from, to).begin(), map.route(from, to).end());
      EXPECT_EQ(once.size(), map.route(from, to).size());
    }
  }
}

TEST_P(EveryPlatform, StandsInTheTableOfTheReadme) {
  const Platform platform = find_platform(GetParam());
  const std::string row = "| `" + platform.name + "` | " + platform.title + " | " +
                          std::to_string(platform.devices()) + " |";
  EXPECT_NE(platform_text("README.md").find(row), std::string::npos) << row;
}

TEST(Platforms, TheReadmeNamesNoOthers) {
  const std::string text = platform_text("README.md");
  const std::regex row("\n\\| `([a-z0-9_]+)` \\| [^|]* \\| [0-9]+ \\|");
  std::vector<std::string> names;
  for (std::sregex_iterator each(text.begin(), text.end(), row), end; each != end; ++each) {
    names.push_back((*each)[1]);
  }
  EXPECT_EQ(names, platform_names());
}

TEST(Platforms, HaveTheDevicesOfTheMachinesTheyStandFor) {
  EXPECT_EQ(find_platform("dgx_a100").devices(), 128);
  EXPECT_EQ(find_platform("a10_pcie").devices(), 4);
  EXPECT_EQ(find_platform("l20_pcie").devices(), 8);
  EXPECT_EQ(find_platform("a100_pcie_roce").devices(), 32);
  EXPECT_EQ(find_platform("tpu_v4").devices(), 512);
  EXPECT_EQ(find_platform("p100_aries").devices(), 128);
}

TEST(Wire, ASwitchIsCrossedFromPortToPort) {
  const Platform platform = find_platform("dgx_a100");
  const WireMap map = wire(platform, 16);
  EXPECT_EQ(way(map, 1, 6), (Way{"device 1 out", "device 6 in"}));
  EXPECT_EQ(way(map, 6, 1), (Way{"device 6 out", "device 1 in"}));
  EXPECT_EQ(map.latency(1, 6), platform.node.latency_s);
  EXPECT_EQ(way(map, 1, 14), (Way{"adapter 1 out", "adapter 14 in"}));
  EXPECT_EQ(map.latency(1, 14), platform.fabric.latency_s);
}

TEST(Wire, DevicesShareAdaptersEvenly) {
  const WireMap map = wire(find_platform("a100_ib_100g"), 32);
  EXPECT_EQ(way(map, 0, 8), (Way{"adapter 0 out", "adapter 1 in"}));
  EXPECT_EQ(way(map, 7, 31), (Way{"adapter 0 out", "adapter 3 in"}));
}

TEST(Wire, AMeshHasAWireForEveryPairAndDirection) {
  const WireMap map = wire(find_platform("a100_mesh"), 8);
  EXPECT_EQ(way(map, 2, 5), (Way{"device 2 out", "device 2 to device 5", "device 5 in"}));
  EXPECT_EQ(map.links.size(), 2u * 8 + 8 * 7);
}

TEST(Wire, PcieGroupsShareOneUplinkPerDirection) {
  const WireMap map = wire(find_platform("a10_pcie"), 4);
  EXPECT_EQ(way(map, 0, 1), (Way{"device 0 out", "device 1 in"}));
  EXPECT_EQ(way(map, 0, 2), (Way{"device 0 out", "group 0 up", "group 1 down", "device 2 in"}));
  EXPECT_EQ(map.route(0, 2)[1], map.route(1, 3)[1]);
  EXPECT_NE(map.route(0, 2)[1], map.route(2, 0)[1]);
  EXPECT_NE(map.route(0, 2)[1], map.route(2, 0)[2]);  // the two directions do not share
}

TEST(Wire, PcieUplinksAreCrossedToAdaptersElsewhere) {
  Platform platform = find_platform("a100_pcie_roce");
  EXPECT_EQ(way(wire(platform, 16), 1, 13),
            (Way{"device 1 out", "adapter 0 out", "adapter 3 in", "device 13 in"}));
  platform.fabric.adapters = 1;
  EXPECT_EQ(way(wire(platform, 16), 1, 13), (Way{"device 1 out", "group 0 up", "adapter 0 out",
                                                 "adapter 1 in", "group 3 down", "device 13 in"}));
}

TEST(Wire, ATorusTakesTheShorterWayAxisByAxis) {
  Platform platform = find_platform("tpu_v4");
  platform.torus.extents = {3, 5};
  platform.node.devices = 15;
  const WireMap map = wire(platform, 15);
  EXPECT_EQ(way(map, 0, 2), (Way{"device 0 axis 1+", "device 1 axis 1+"}));
  EXPECT_EQ(way(map, 0, 4), (Way{"device 0 axis 1-"}));
  EXPECT_EQ(way(map, 0, 10), (Way{"device 0 axis 0-"}));
  EXPECT_EQ(way(map, 1, 9), (Way{"device 1 axis 1-", "device 0 axis 1-", "device 4 axis 0+"}));
  for (int from = 0; from < 15; ++from) {
    for (int to = 0; to < 15; ++to) {
      const int rows = std::abs(from / 5 - to / 5), columns = std::abs(from % 5 - to % 5);
      const int hops = std::min(rows, 3 - rows) + std::min(columns, 5 - columns);
      EXPECT_EQ(map.route(from, to).size(), static_cast<std::size_t>(hops));
      EXPECT_DOUBLE_EQ(map.latency(from, to), hops * platform.torus.latency_s);
    }
  }
}

TEST(Wire, RefusesMoreDevicesThanThereAre) {
  const Platform platform = find_platform("a10_pcie");
  for (const int devices : {0, 5}) {
    try {
      wire(platform, devices);
      FAIL() << devices;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(std::string(error.what()), "platform a10_pcie has no " + std::to_string(devices) +
                                               " devices; allowed: 1 to 4");
    }
  }
}

// A shipped platform with one piece of text replaced: the complaint, whose line is counted from where
// the text was.
class Refused : public testing::Test {
 protected:
  std::string complaint(const std::string& name, const std::string& old, const std::string& text) {
    std::string edited = platform_text(name + ".toml");
    const std::size_t at = edited.find(old);
    EXPECT_NE(at, std::string::npos) << old;
    if (at == std::string::npos) return "";
    const auto begin = edited.begin(), end = begin + static_cast<std::ptrdiff_t>(at);
    const std::ptrdiff_t line = 1 + std::count(begin, end, '\n');
    edited.replace(at, old.size(), text);
    const std::string path = directory_.file("edited.toml");
    std::ofstream(path) << edited;
    try {
      load_platform(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      const std::string what = error.what();
      EXPECT_EQ(what.find(path + ":"), 0u) << what;
      const std::string rest = what.substr(path.size() + 1);
      const std::size_t colon = rest.find(':');
      return std::to_string(std::stol(rest.substr(0, colon)) - line) + rest.substr(colon);
    }
    return "nothing refused";
  }
  test::TemporaryDirectory directory_;
};

TEST_F(Refused, UnknownKeys) {
  EXPECT_EQ(complaint("dgx_a100", "wiring =", "wireing = \"switch\"\nwiring ="),
            "0: node.wireing: unknown key (did you mean 'wiring'?); allowed: devices, group, "
            "latency, pair_bandwidth, port_bandwidth, uplink_bandwidth, wiring");
}

TEST_F(Refused, MissingNumbersAndSources) {
  EXPECT_NE(complaint("dgx_a100", "f32_flops", "f64_flops").find("device.f32_flops: it is missing"),
            std::string::npos);
  EXPECT_EQ(complaint("dgx_a100", "memory = { value = 80, unit = \"GiB\", source = ",
                      "memory = { value = 80, unit = \"GiB\", from = "),
            "0: device.memory.source: it is missing; allowed: text");
  const std::string misspelt = complaint("dgx_a100", "[calibration]\nband", "[calibration]\nbnd");
  EXPECT_EQ(misspelt.find("0: calibration.band: it is missing (is 'bnd' in line "), 0u) << misspelt;
  EXPECT_NE(misspelt.find(" meant for it?); allowed: a number from 0 to 10"), std::string::npos);
}

TEST_F(Refused, WrongUnitsAndZeroBandwidth) {
  EXPECT_EQ(complaint("dgx_a100", "memory = { value = 80, unit = \"GiB\"",
                      "memory = { value = 80, unit = \"GB/s\""),
            "0: device.memory.unit: unknown value 'GB/s' (did you mean 'GB'?); allowed: B, GB, "
            "GiB, KiB, MB, MiB, TB, kB");
  EXPECT_EQ(
      complaint("dgx_a100", "adapter_bandwidth = { value = 25", "adapter_bandwidth = { value = 0"),
      "0: fabric.adapter_bandwidth.value: it is 0 GB/s; allowed: a quantity of at least 1 "
      "B/s");
  EXPECT_EQ(complaint("dgx_a100", "attention_forward = { value = 0.73",
                      "attention_forward = { value = 1.2"),
            "0: device.kernels.attention_forward.value: it is 1.2; allowed: a quantity from "
            "0.001 to 1");
}

TEST_F(Refused, ImpossibleTopologies) {
  EXPECT_EQ(complaint("tpu_v4", "extents = [8, 8, 8]", "extents = [8, 8, 4]"),
            "0: torus.extents: they do not multiply to the node's devices; allowed: a product "
            "of 512");
  EXPECT_EQ(complaint("tpu_v4", "extents = [8, 8, 8]", "extents = [0, 8, 8]"),
            "0: torus.extents: an element is the whole number 0; allowed: each a whole number "
            "from 1 to 4096");
  EXPECT_EQ(complaint("a10_pcie", "group = 2", "group = 3"),
            "0: node.group: groups of 3 do not divide 4 devices; allowed: divisors");
  EXPECT_NE(complaint("a10_pcie", "group = 2\n", "").find("node.group: it is missing"),
            std::string::npos);
  EXPECT_EQ(complaint("dgx_a100", "adapters = 8", "adapters = 3"),
            "0: fabric.adapters: 3 adapters do not divide 8 devices; allowed: divisors");
  EXPECT_EQ(complaint("dgx_a100", "adapters = 8", "adapters = 9"),
            "0: fabric.adapters: it is the whole number 9; allowed: a whole number from 1 to 8");
  EXPECT_EQ(complaint("dgx_a100", "nodes = 16", "nodes = 1"),
            "0: fabric.nodes: it is the whole number 1; allowed: a whole number from 2 to 512");
  EXPECT_EQ(complaint("a100_nvlink", "devices = 8", "devices = 0"),
            "0: node.devices: it is the whole number 0; allowed: a whole number from 1 to 4096");
}

TEST_F(Refused, KeysOfAnotherWiring) {
  EXPECT_EQ(complaint("a100_nvlink", "wiring = \"switch\"", "wiring = \"switch\"\ngroup = 2"),
            "1: node.group: it has no effect with this wiring; allowed: with \"pcie\"");
  EXPECT_EQ(complaint("a100_nvlink", "[calibration]", "[torus]\nextents = [8]\n[calibration]"),
            "0: torus: the node is no torus; allowed: with wiring \"torus\"");
  EXPECT_EQ(complaint("tpu_v4", "[calibration]", "[fabric]\nnodes = 2\n[calibration]"),
            "0: fabric: a torus spans the machine; allowed: no fabric with this wiring");
  EXPECT_EQ(complaint("a100_nvlink", "wiring = \"switch\"", "wiring = \"switchh\""),
            "0: node.wiring: unknown value 'switchh' (did you mean 'switch'?); allowed: switch, "
            "mesh, pcie, torus");
}

// The same property as tests/fuzz checks for longer.
TEST(Platforms, DamagedFilesAreSurvived) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("damaged.toml");
  std::mt19937_64 random(1);
  int accepted = 0, refused = 0;
  for (const std::string& name : platform_names()) {
    const std::vector<std::byte> whole =
        test::read_bytes(shipped("experiments/platforms/" + name + ".toml").string());
    EXPECT_EQ(fuzz::read_bytes_as_platform(path, whole), "");
    for (int i = 0; i < 50; ++i) {
      const bool ok = fuzz::read_bytes_as_platform(path, test::damaged(whole, random)).empty();
      ++(ok ? accepted : refused);
    }
  }
  EXPECT_GT(accepted, 0);  // damage to titles and sources is not visible
  EXPECT_GT(refused, 0);
}

TEST(Platforms, AreFoundByNameOrPathAndMisspellingsAreHelped) {
  EXPECT_EQ(find_platform(shipped("experiments/platforms/a10_pcie.toml").string()).name,
            "a10_pcie");
  try {
    find_platform("dgx_a10");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(
        std::string(error.what())
            .find("unknown platform 'dgx_a10' (did you mean 'dgx_a100'?); allowed: a100_40gb, "),
        0u)
        << error.what();
  }
}

}  // namespace
}  // namespace sp
