// That no item of a paper is silently missing: the registry holds this list, no more and no less.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "harness/config/config.hpp"
#include "harness/config/shipped.hpp"
#include "harness/papers/replay.hpp"

namespace sp {
namespace {

namespace fs = std::filesystem;

const fs::path kConfigs = shipped("experiments/configs");

// What the papers say of attention layers.
const std::set<std::string> kItems{"rsa/communication",
                                   "rsa/memory",
                                   "rsa/table4",
                                   "rsa/claims",
                                   "ring_attention/table1",
                                   "ring_attention/table2",
                                   "ring_attention/table3",
                                   "ring_attention/figure5",
                                   "ring_attention/overlap",
                                   "striped/theoretical",
                                   "striped/observed",
                                   "zigzag/readme",
                                   "usp/table3",
                                   "usp/table4",
                                   "dist_flash/table1",
                                   "dist_flash/table4",
                                   "burst/table2",
                                   "burst/table3",
                                   "lwm/lockstep",
                                   "lwm/meshes",
                                   "lwm/decode",
                                   "lasp1/communication",
                                   "lasp1/speed",
                                   "lasp2/layer-2048k",
                                   "lasp2/communication",
                                   "lasp2/chain-vs-gather",
                                   "lasp2/figure3",
                                   "lasp2/table5",
                                   "lasp2/table6",
                                   "token_ring/case-study",
                                   "token_ring/traffic",
                                   "token_ring/controls"};

TEST(Registry, HoldsTheseItemsAndNoOthers) {
  std::set<std::string> ids;
  for (const ReplayItem* item : replay_items()) ids.insert(item->id);
  EXPECT_EQ(ids, kItems);
}

TEST(Registry, NamesThePapersOneAfterTheOther) {
  std::vector<std::string> papers;
  for (const ReplayItem* item : replay_items()) {
    const std::string id = item->id;
    papers.push_back(id.substr(0, id.find('/')));
  }
  papers.erase(std::unique(papers.begin(), papers.end()), papers.end());
  EXPECT_EQ(std::set<std::string>(papers.begin(), papers.end()).size(), papers.size())
      << "`seqpar list` would name a paper in two places";
}

TEST(Registry, HasItemsWithTitlesPapersAndConfigs) {
  std::set<std::string> titles;
  for (const ReplayItem* item : replay_items()) {
    SCOPED_TRACE(item->id);
    const std::string title = item->title;
    EXPECT_FALSE(title.empty());
    EXPECT_EQ(title.find('\n'), std::string::npos);
    EXPECT_TRUE(titles.insert(title).second) << "two items have the title " << title;
    EXPECT_NE(std::string(item->paper), "");
    EXPECT_NO_THROW(load_config((kConfigs / (std::string(item->id) + ".toml")).string()));
  }
}

// A config whose item is gone, or was never registered.
TEST(Registry, HasAnItemForEveryConfig) {
  for (const auto& entry : fs::recursive_directory_iterator(kConfigs)) {
    const std::string name = fs::relative(entry.path(), kConfigs).generic_string();
    if (!name.ends_with(".toml") || name.ends_with(".measured.toml")) continue;
    EXPECT_NE(find_replay(name.substr(0, name.size() - 5)), nullptr) << name;
  }
}

}  // namespace
}  // namespace sp
