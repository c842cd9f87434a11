// Orders of posts over several communicators: circles are found, what merely looks like one is not.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/post_order.hpp"

#include <gtest/gtest.h>

#include "optimized/comm/checked.hpp"
#include "optimized/comm/mesh.hpp"
#include "optimized/comm/thread/thread_world.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::kPatient;

PostLog log_of(const std::vector<std::vector<PostLog::Meeting>>& posts) {
  PostLog log;
  for (const auto& meetings : posts) {
    std::string what;
    for (const PostLog::Meeting meeting : meetings) what += std::to_string(meeting);
    log.add(what, meetings);
  }
  return log;
}

TEST(PostOrder, OfTwoRanksMustAgree) {
  EXPECT_EQ(conflict({log_of({{1}, {2}, {3}}), log_of({{1}, {3}})}), "");
  EXPECT_EQ(conflict({log_of({{1}, {2}}), log_of({{2}, {1}})}),
            "rank 0 posts 1 before 2; rank 1 posts 2 before 1");
  EXPECT_EQ(conflict({log_of({{1}, {}, {2}}), log_of({{2}, {1}})}),
            "rank 0 posts 1 before 2; rank 1 posts 2 before 1");
  EXPECT_EQ(conflict({log_of({{9}, {1}, {5}, {2}}), log_of({{2}, {6}, {1}})}),
            "rank 0 posts 1 before 2; rank 1 posts 2 before 1");
}

TEST(PostOrder, OfThreeRanksMayBeACircleThoughAnyTwoAgree) {
  const PostLog a = log_of({{1}, {2}}), b = log_of({{2}, {3}}), c = log_of({{3}, {1}});
  EXPECT_EQ(conflict({a, b}), "");
  EXPECT_EQ(conflict({b, c}), "");
  EXPECT_EQ(conflict({a, b, c}),
            "rank 0 posts 1 before 2; rank 1 posts 2 before 3; rank 2 posts 3 before 1");
}

TEST(PostOrder, OfWhatIsPostedAtOnceIsNone) {
  EXPECT_EQ(conflict({log_of({{1, 2}}), log_of({{1}, {2}}), log_of({{2, 1}})}), "");
  // A ring step by step, and a chain: everybody receives before it sends.
  EXPECT_EQ(
      conflict({log_of({{1, 3}, {4, 6}}), log_of({{2, 1}, {5, 4}}), log_of({{3, 2}, {6, 5}})}), "");
  EXPECT_EQ(conflict({log_of({{1}}), log_of({{1}, {2}}), log_of({{2}, {3}})}), "");
}

TEST(PostOrder, SurvivesItsText) {
  const PostLog log = log_of({{1}, {0xffffffffffffffffu, 2}, {3}});
  const PostLog again = PostLog::of_text(log.text() + "\n\n");
  ASSERT_GE(again.posts().size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(again.posts()[i].what, log.posts()[i].what);
    EXPECT_EQ(again.posts()[i].meetings, log.posts()[i].meetings);
  }
}

// Rank `odd` of three posts to its two channels in the other order.
std::string checked_order(int odd) {
  return test::failure_of([&] {
    run_ranks(3, kPatient, [&](Communicator& inner) {
      CpuMemory memory;
      CheckedCommunicator comm(inner);
      Communicator* channels[] = {&comm.channel("one"), &comm.channel("two")};
      if (comm.rank() == odd) std::swap(channels[0], channels[1]);
      std::vector<Pending> pending;
      for (Communicator* channel : channels) {
        const Tensor x = memory.allocate(DType::kF32, {2, 1, 1, 1}, "x");
        *x.as<float>() = 0;
        x.as<float>()[1] = 0;
        pending.push_back(channel->all_reduce(x, {"x", 0}));
      }
      for (Pending& each : pending) each.wait();
      comm.finish();
      comm.check_orders();
    });
  });
}

TEST(PostOrder, IsComparedByCheckedCommunicators) {
  EXPECT_EQ(checked_order(-1), "");
  for (int odd = 0; odd < 3; ++odd) {
    const std::string said = checked_order(odd);
    EXPECT_NE(said.find("communicators are used in different orders"), std::string::npos) << said;
    EXPECT_NE(said.find("rank " + std::to_string(odd) + " posts all_reduce of x step 0"),
              std::string::npos)
        << said;
  }
}

// Rows first on some ranks, columns first on others: a circle of four that no pair shows.
TEST(PostOrder, OfRowsAndColumnsOfAMeshIsCompared) {
  const auto run = [](bool mixed) {
    return test::failure_of([&] {
      run_ranks(4, kPatient, [&](Communicator& inner) {
        CpuMemory memory;
        CheckedCommunicator comm(inner);
        const Mesh mesh({{"row", 2}, {"column", 2}}, comm.rank());
        std::vector<const char*> axes{"row", "column"};
        const bool diagonal = mesh.index("row") == mesh.index("column");
        for (const char* axis : axes) mesh.group(comm, axis);
        if (mixed && diagonal) std::swap(axes[0], axes[1]);
        std::vector<Pending> pending;
        for (const char* axis : axes) {
          const Tensor x = memory.allocate(DType::kF32, {1, 1, 1, 1}, "x");
          *x.as<float>() = 0;
          pending.push_back(mesh.group(comm, axis).all_reduce(x, {"x", 0}));
        }
        for (Pending& each : pending) each.wait();
        comm.finish();
        comm.check_orders();
      });
    });
  };
  EXPECT_EQ(run(false), "");
  EXPECT_NE(run(true).find("different orders"), std::string::npos);
}

}  // namespace
}  // namespace sp
