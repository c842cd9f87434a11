// RankFailures: the cause is reported, whoever speaks first.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/rank_failures.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "optimized/comm/peer_failure.hpp"

namespace sp::test {
namespace {

template <class E>
void record(RankFailures& failures, int rank, const E& error) {
  try {
    throw error;
  } catch (...) {
    failures.record(rank);
  }
}

Error reported(const RankFailures& failures, const std::string& addition = "") {
  try {
    failures.rethrow(addition);
  } catch (const Error& error) {
    return error;
  }
}

TEST(RankFailures, TheFirstCauseIsReported) {
  RankFailures failures;
  EXPECT_FALSE(failures.any());
  record(failures, 2, std::out_of_range("beyond"));
  record(failures, 0, Error(ErrorKind::kUsage, "later"));
  EXPECT_TRUE(failures.any() && failures.flag()->load());
  EXPECT_STREQ(reported(failures).what(), "rank 2: beyond");
  EXPECT_EQ(reported(failures).kind(), ErrorKind::kInternal);
  EXPECT_STREQ(reported(failures, "\nmore").what(), "rank 2: beyond\nmore");
}

TEST(RankFailures, ACauseComesBeforeWhatPeersWereToldEarlier) {
  RankFailures failures;
  record(failures, 1, PeerFailure("remote error\n  rank 1 waits for k"));
  EXPECT_TRUE(failures.flag()->load());
  record(failures, 0, Error(ErrorKind::kUsage, "the counts differ"));
  record(failures, 2, PeerFailure("another rank has failed"));
  EXPECT_STREQ(reported(failures).what(), "rank 0: the counts differ");
  EXPECT_EQ(reported(failures).kind(), ErrorKind::kUsage);
}

TEST(RankFailures, ARanksSecondFailureFollowsFromItsFirst) {
  RankFailures failures;
  record(failures, 1, PeerFailure("remote error"));
  record(failures, 1, std::runtime_error("what its end met"));
  EXPECT_STREQ(reported(failures).what(), "rank 1: remote error");
}

TEST(RankFailures, ATimeOutShowsWhatAllWaitedFor) {
  RankFailures failures;
  record(failures, 1, PeerFailure("another rank has failed\n  rank 1 waits for v"));
  record(failures, 0, Error(ErrorKind::kEnvironment, "time is up\n  rank 0 waits for k"));
  record(failures, 2, PeerFailure("another rank has failed\n  rank 2 waits for dk"));
  EXPECT_STREQ(reported(failures).what(),
               "rank 0: time is up\n  rank 0 waits for k\n  rank 1 waits for v\n"
               "  rank 2 waits for dk");
}

TEST(RankFailures, WithoutACauseEveryRankIsHeard) {
  RankFailures failures;
  record(failures, 1, PeerFailure("remote error"));
  record(failures, 0, PeerFailure("another rank has failed; the counts differ"));
  EXPECT_STREQ(reported(failures).what(),
               "rank 1: remote error\nrank 0: another rank has failed; the counts differ");
  EXPECT_EQ(reported(failures).kind(), ErrorKind::kEnvironment);
}

}  // namespace
}  // namespace sp::test
