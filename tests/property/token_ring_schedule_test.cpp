// Who sends what to whom: the messages of a real TokenRing run on four ranks against the schedule
// of the paper's code.
// SPDX-License-Identifier: Apache-2.0
#include <mutex>
#include <set>
#include <string_view>
#include <tuple>

#include "optimized/comm/decorator.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

// Step, sender, receiver, rows.
using Sent = std::tuple<int, int, int, std::int64_t>;

struct Book {
  std::mutex mutex;
  std::multiset<Sent> queries, results;
};

// Notes every point-to-point message, on the communicators split from it too.
class Recorder final : public CommunicatorDecorator {
 public:
  Recorder(Communicator& inner, Book& book) : CommunicatorDecorator(inner), book_(book) {}
  Recorder(std::unique_ptr<Communicator> inner, Book& book)
      : CommunicatorDecorator(std::move(inner)), book_(book) {}

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    for (const Message& message : request.sends) {
      const std::lock_guard lock(book_.mutex);
      const std::string_view tensor = message.label.tensor;
      const Sent sent{message.label.step, rank(), message.peer, message.data.extent(0)};
      if (tensor == "q") book_.queries.insert(sent);
      // Step 0 computes the own block, which goes nowhere; the harness gathers `out` with step 0.
      if (tensor == "out" && message.label.step > 0) book_.results.insert(sent);
    }
    return start_inner(std::move(request));
  }
  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    return std::make_unique<Recorder>(split_inner(colour, key), book_);
  }

 private:
  Book& book_;
};

// Of a forward pass on 4 ranks with 8 tokens each.
void record(const char* id, bool causal, Book& book) {
  Problem problem;
  problem.shape = {1, 32, 2, 2, 4, 4};
  problem.mask.causal = causal;
  Inputs inputs = Draw(1).inputs(problem);
  inputs.d_out = {};
  Rig rig;
  rig.wrap_communicator = [&](Communicator& inner) {
    return std::make_unique<Recorder>(inner, book);
  };
  run(*find_algorithm(id), problem, inputs, {4, 1}, rig);
}

// A result carries the step that computed it; it travels while the next step computes, so the
// schedule that lists it under that next step has it one line lower.
TEST(TokenRingSchedule, ZigzagCausalSendsWhatThePapersCodeSends) {
  Book book;
  record("token_ring/zigzag", true, book);
  constexpr std::int64_t kWhole = 8, kHalf = 4;
  const std::multiset<Sent> queries{
      {0, 0, 3, kHalf}, {0, 1, 0, kWhole}, {0, 2, 1, kWhole}, {0, 3, 2, kWhole},
      {1, 0, 3, kHalf}, {1, 1, 0, kWhole}, {1, 2, 1, kWhole}, {1, 3, 2, kHalf},
      {2, 0, 3, kHalf}, {2, 1, 0, kWhole}, {2, 2, 1, kHalf},  {2, 3, 2, kHalf},
  };
  const std::multiset<Sent> results{
      {1, 0, 1, kWhole}, {1, 1, 2, kWhole}, {1, 2, 3, kWhole}, {1, 3, 0, kHalf},
      {2, 0, 2, kWhole}, {2, 1, 3, kWhole}, {2, 2, 0, kHalf},  {2, 3, 1, kHalf},
      {3, 0, 3, kWhole}, {3, 1, 0, kHalf},  {3, 2, 1, kHalf},  {3, 3, 2, kHalf},
  };
  EXPECT_EQ(book.queries, queries);
  EXPECT_EQ(book.results, results);
}

// The paper's code for this case passes queries up; ours passes them down. Rank r here is rank
// (4 - r) mod 4 there.
TEST(TokenRingSchedule, WithoutMaskIsTheMirrorImageOfThePapersCode) {
  Book book;
  record("token_ring/contiguous", false, book);
  std::multiset<Sent> queries, results;
  const auto mirror = [](int theirs) { return (4 - theirs) % 4; };
  for (int theirs = 0; theirs < 4; ++theirs) {
    for (int step = 0; step < 3; ++step) {
      queries.insert({step, mirror(theirs), mirror((theirs + 1) % 4), 8});
      // Computed in step + 1 for owner theirs - (step + 1), sent home during the step after it.
      results.insert({step + 1, mirror(theirs), mirror((theirs + 4 - (step + 1)) % 4), 8});
    }
  }
  EXPECT_EQ(book.queries, queries);
  EXPECT_EQ(book.results, results);
}

TEST(TokenRingSchedule, ContiguousCausalPassesNothingBeyondRankZero) {
  Book book;
  record("token_ring/contiguous", true, book);
  const std::multiset<Sent> queries{{0, 1, 0, 8}, {0, 2, 1, 8}, {0, 3, 2, 8},
                                    {1, 1, 0, 8}, {1, 2, 1, 8}, {2, 1, 0, 8}};
  const std::multiset<Sent> results{{1, 0, 1, 8}, {1, 1, 2, 8}, {1, 2, 3, 8},
                                    {2, 0, 2, 8}, {2, 1, 3, 8}, {3, 0, 3, 8}};
  EXPECT_EQ(book.queries, queries);
  EXPECT_EQ(book.results, results);
}

}  // namespace
}  // namespace sp::test
