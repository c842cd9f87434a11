// Meshes: places, groups and communicators of named axes.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/mesh.hpp"

#include <gtest/gtest.h>

#include <set>

#include "optimized/comm/thread/thread_world.hpp"
#include "reference/problem/error.hpp"

namespace sp::test {
namespace {

TEST(Mesh, NumbersTheLastAxisFastest) {
  const Mesh mesh({{"dp", 2}, {"node", 3}, {"local", 4}}, 18);  // 1, 1, 2
  EXPECT_EQ(mesh.index("dp"), 1);
  EXPECT_EQ(mesh.index("node"), 1);
  EXPECT_EQ(mesh.index("local"), 2);
  EXPECT_EQ(mesh.along("dp"), (Ranks{6, 12, 2}));
  EXPECT_EQ(mesh.along("node"), (Ranks{14, 4, 3}));
  EXPECT_EQ(mesh.along("local"), (Ranks{16, 1, 4}));
  EXPECT_EQ(mesh.at("node", 2).along("local"), (Ranks{20, 1, 4}));
  EXPECT_EQ(mesh.describe(), "dp 2 x node 3 x local 4");
}

TEST(Mesh, PartitionsTheRanksAlongEveryAxis) {
  const std::vector<Mesh::Axis> axes{{"a", 3}, {"b", 1}, {"c", 4}};
  for (const Mesh::Axis& axis : axes) {
    std::multiset<int> seen;
    for (int rank = 0; rank < 12; ++rank) {
      const Mesh mesh(axes, rank);
      const Ranks group = mesh.along(axis.name);
      EXPECT_EQ(group[mesh.index(axis.name)], rank);
      for (int i = 0; i < group.count; ++i) {
        EXPECT_EQ(mesh.at(axis.name, i).along(axis.name), group);
        seen.insert(group[i]);
      }
    }
    for (int rank = 0; rank < 12; ++rank)
      EXPECT_EQ(seen.count(rank), static_cast<std::size_t>(axis.size));
  }
}

TEST(Mesh, RefusesWhatItHasNot) {
  EXPECT_THROW(Mesh({{"a", 2}}, 2), Error);
  EXPECT_THROW(Mesh({{"a", 0}}, 0), Error);
  const Mesh mesh({{"a", 2}, {"b", 2}}, 1);
  EXPECT_THROW(mesh.index("c"), Error);
  EXPECT_THROW(mesh.at("a", 2), Error);
}

TEST(Mesh, GroupsAreOrderedByPlaceAndKept) {
  run_ranks(6, kDefaultTimeLimit, [](Communicator& comm) {
    const Mesh mesh({{"node", 2}, {"local", 3}}, comm.rank());
    for (const char* axis : {"node", "local"}) {
      Communicator& group = mesh.group(comm, axis);
      EXPECT_EQ(group.size(), mesh.size(axis));
      EXPECT_EQ(group.rank(), mesh.index(axis));
      EXPECT_EQ(&group, &mesh.group(comm, axis));
      EXPECT_NE(&group, &mesh.group(comm, axis, "back"));
    }
    const Mesh flat({{"node", 1}, {"local", 6}}, comm.rank());
    EXPECT_EQ(&flat.group(comm, "local"), &comm);
    EXPECT_NE(&flat.group(comm, "local", "back"), &comm);
  });
}

}  // namespace
}  // namespace sp::test
