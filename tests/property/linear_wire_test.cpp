// What algorithms of linear attention send: how much, how often, in which order, and what the
// states on their way are.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string_view>

#include "optimized/comm/decorator.hpp"
#include "tests/property/linear_setting.hpp"

namespace sp::test {
namespace {

constexpr std::int64_t kDecades[] = {1000, 10'000, 100'000, 1'000'000, 10'000'000};

bool passes_states(const Subject& s) {
  const std::string_view id = s.algorithm->id;
  return id == "lasp2" || id == "lasp1" || id == "lasp1_released" || id == "zeco";
}
bool passes_tokens(const Subject& s) { return of_linear(s) && !passes_states(s); }

Problem problem_of_length(const Subject& subject, std::int64_t N) {
  Problem problem = problem_for(subject, {1, N, 4, 2, 8, 8});
  problem.dtype = DType::kBF16;
  return problem;
}

Cost cost_of(const Subject& subject, std::int64_t N, int rank) {
  const World world{8, 4};
  const Layout layout(subject.algorithm->sharding, N, world.size);
  return subject.algorithm->cost(problem_of_length(subject, N), layout, world, rank);
}

std::vector<Measured> measured(const Subject& subject, std::int64_t N) {
  const Problem problem = problem_of_length(subject, N);
  return execute(threads(), {}, *subject.algorithm, problem, inputs_for(problem, 1), {5, 1}).ranks;
}

class PassesStates : public EachSubject {};

TEST_P(PassesStates, AsManyBytesAtAnyLength) {
  for (int rank = 0; rank < 8; ++rank) {
    const Cost shortest = cost_of(GetParam(), kDecades[0], rank);
    EXPECT_GT(shortest.forward.bytes_sent + shortest.backward.bytes_sent, 0);
    for (const std::int64_t N : kDecades) {
      const Cost cost = cost_of(GetParam(), N, rank);
      EXPECT_EQ(cost.forward.bytes_sent, shortest.forward.bytes_sent) << N;
      EXPECT_EQ(cost.backward.bytes_sent, shortest.backward.bytes_sent) << N;
      EXPECT_EQ(cost.forward.messages_sent, shortest.forward.messages_sent) << N;
      EXPECT_EQ(cost.backward.messages_sent, shortest.backward.messages_sent) << N;
    }
  }
}

TEST_P(PassesStates, AsManyBytesInRunsOfAnyLength) {
  const std::vector<Measured> shortest = measured(GetParam(), 0);
  for (const std::int64_t N : {3, 40, 400}) {
    const std::vector<Measured> ranks = measured(GetParam(), N);
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      EXPECT_EQ(ranks[rank].forward.bytes_sent, shortest[rank].forward.bytes_sent) << N;
      EXPECT_EQ(ranks[rank].backward.bytes_sent, shortest[rank].backward.bytes_sent) << N;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, PassesStates, testing::ValuesIn(subjects_where(passes_states)),
                         subject_of);

class PassesTokens : public EachSubject {};

TEST_P(PassesTokens, AsManyMoreBytesAsThereAreTokens) {
  for (int rank = 0; rank < 8; ++rank) {
    const Cost shortest = cost_of(GetParam(), kDecades[0], rank);
    for (const std::int64_t N : kDecades) {
      const Cost cost = cost_of(GetParam(), N, rank);
      EXPECT_EQ(cost.forward.bytes_sent, N / kDecades[0] * shortest.forward.bytes_sent);
      EXPECT_EQ(cost.backward.bytes_sent, N / kDecades[0] * shortest.backward.bytes_sent);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, PassesTokens, testing::ValuesIn(subjects_where(passes_tokens)),
                         subject_of);

// What one rank did with states, in order.
struct Event {
  enum Kind { kGather, kReceive, kSend, kArrived } kind;
  int pass;                     // 0 forward, 1 backward
  int peer, piece;              // of a receive or send
  std::vector<double> state{};  // what was gathered
};

struct Book {
  std::vector<std::vector<Event>> ranks;  // each written by its own thread
  std::vector<int> others;                // requests about anything but states, per rank
};

class Watched final : public Operation {
 public:
  Watched(std::unique_ptr<Operation> inner, std::vector<Event>& events, Event arrived)
      : inner_(std::move(inner)), events_(events), arrived_(std::move(arrived)) {}
  void wait() override {
    inner_->wait();
    events_.push_back(arrived_);
  }

 private:
  std::unique_ptr<Operation> inner_;
  std::vector<Event>& events_;
  Event arrived_;
};

// Notes every request. The harness collects `out` between the passes, gradients and costs after.
class Recorder final : public CommunicatorDecorator {
 public:
  Recorder(Communicator& inner, Book& book) : CommunicatorDecorator(inner), book_(book) {}

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    const auto me = static_cast<std::size_t>(rank());
    std::vector<Event>& events = book_.ranks[me];
    const Label label = (request.sends.empty() ? request.receives : request.sends).front().label;
    const std::string_view tensor = label.tensor;
    if (tensor != "state") {
      if (tensor == "out") pass_ = 1;
      constexpr std::string_view kCollected[] = {"out", "d_q", "d_k", "d_v", "d_log_decay", "cost"};
      if (std::ranges::find(kCollected, tensor) == std::end(kCollected)) ++book_.others[me];
      return start_inner(std::move(request));
    }
    if (request.pattern == Pattern::kAllGather) {
      const Tensor& mine = request.sends.front().data;
      std::vector<double> state(mine.as<double>(), mine.as<double>() + mine.elements());
      events.push_back({Event::kGather, pass_, rank(), label.step, std::move(state)});
      return start_inner(std::move(request));
    }
    EXPECT_EQ(request.pattern, Pattern::kExchange);
    EXPECT_EQ(request.sends.size() + request.receives.size(), 1u);
    const bool receives = request.sends.empty();
    const int peer = (receives ? request.receives : request.sends).front().peer;
    events.push_back({receives ? Event::kReceive : Event::kSend, pass_, peer, label.step});
    auto operation = start_inner(std::move(request));
    if (!receives) return operation;
    return std::make_unique<Watched>(std::move(operation), events,
                                     Event{Event::kArrived, pass_, peer, label.step});
  }

 private:
  Book& book_;
  int pass_ = 0;
};

Book record(const char* id, const Problem& problem, const Inputs& inputs, const World& world) {
  Book book;
  book.ranks.resize(static_cast<std::size_t>(world.size));
  book.others.resize(static_cast<std::size_t>(world.size));
  Rig rig;
  rig.wrap_communicator = [&](Communicator& inner) {
    return std::make_unique<Recorder>(inner, book);
  };
  run(*find_algorithm(id), problem, inputs, world, rig);
  for (const int others : book.others) EXPECT_EQ(others, 0) << id << " sends more than states";
  return book;
}

Problem small(Module module, DType dtype = DType::kF64) {
  Problem problem = problem_for({find_algorithm("lasp2"), module}, {1, 24, 2, 2, 4, 3});
  problem.dtype = dtype;
  return problem;
}

TEST(Lasp2, GathersStatesOncePerPass) {
  const Problem problem = small(Module::kGla);
  for (const int splits : {1, 3}) {
    const Book book = record("lasp2", problem, inputs_for(problem, 1), {6, 1, splits});
    for (const std::vector<Event>& events : book.ranks) {
      ASSERT_EQ(std::ssize(events), 2 * splits);
      for (int n = 0; n < 2 * splits; ++n) {
        const Event& event = events[static_cast<std::size_t>(n)];
        EXPECT_EQ(event.kind, Event::kGather);
        EXPECT_EQ(event.pass, n / splits);
        EXPECT_EQ(event.piece, n % splits);
      }
    }
  }
}

// P-1 hops of every piece per pass, each of which waits for the one before it.
void expect_chain(const char* id, int splits, int pieces) {
  SCOPED_TRACE(id);
  constexpr int P = 6;
  const Problem problem = small(Module::kLightning);
  const Book book = record(id, problem, inputs_for(problem, 1), {P, 1, splits});
  for (int pass = 0; pass < 2; ++pass) {
    const int step = pass == 0 ? 1 : -1, first = pass == 0 ? 0 : P - 1, last = P - 1 - first;
    int hops = 0;
    for (int rank = 0; rank < P; ++rank) {
      std::vector<int> arrived(static_cast<std::size_t>(pieces));
      int sent = 0, received = 0;
      for (const Event& event : book.ranks[static_cast<std::size_t>(rank)]) {
        if (event.pass != pass) continue;
        ASSERT_LT(event.piece, pieces);
        if (event.kind == Event::kReceive) {
          EXPECT_EQ(event.peer, rank - step);
          ++received;
        }
        if (event.kind == Event::kArrived) arrived[static_cast<std::size_t>(event.piece)] = 1;
        if (event.kind == Event::kSend) {
          EXPECT_EQ(event.peer, rank + step);
          EXPECT_EQ(arrived[static_cast<std::size_t>(event.piece)], rank == first ? 0 : 1)
              << "rank " << rank << " sends piece " << event.piece << " before it has arrived";
          ++sent;
        }
      }
      EXPECT_EQ(sent, rank == last ? 0 : pieces) << "rank " << rank;
      EXPECT_EQ(received, rank == first ? 0 : pieces) << "rank " << rank;
      hops += sent;
    }
    EXPECT_EQ(hops, (P - 1) * pieces);
  }
}

TEST(Lasp1, IsAChainOfHops) {
  for (const int splits : {1, 3}) {
    expect_chain("lasp1", splits, 1);
    expect_chain("lasp1_released", splits, 1);
  }
}

TEST(Zeco, IsAChainOfHopsForEveryPiece) {
  expect_chain("zeco", 1, 1);
  expect_chain("zeco", 3, 3);
  expect_chain("zeco", 64, 4);  // features
}

// Backward, rank t gathers D_t = scale sum_j lambda^j q_j d_outT_j over its tokens j = 1..c. Of the
// reversed sequence, rank P-1-t gathers M = sum_j lambda^(j-1) k_j vT_j with q and d_out in the
// places of k and v: D_t = scale lambda M, head by head.
TEST(Lasp2, GathersBackwardTheStatesOfReversedTime) {
  constexpr int P = 4;
  for (const Module module : {Module::kBasic, Module::kLightning, Module::kRetention}) {
    const Problem problem = small(module);
    const Inputs inputs = inputs_for(problem, 7);
    const Book book = record("lasp2", problem, inputs, {P, 1});
    Inputs back = inputs;
    std::vector<std::int64_t> order = range(0, problem.shape.N);
    std::reverse(order.begin(), order.end());
    back.k = take(inputs.q, 1, order);
    back.v = take(inputs.d_out, 1, order);
    const Book mirror = record("lasp2", problem, back, {P, 1});
    for (int rank = 1; rank < P; ++rank) {  // before the first chunk there is no state
      const std::vector<double>& d = book.ranks[static_cast<std::size_t>(rank)].at(1).state;
      const std::vector<double>& m =
          mirror.ranks[static_cast<std::size_t>(P - 1 - rank)].at(0).state;
      ASSERT_EQ(d.size(), m.size());
      const std::int64_t H = problem.shape.H, E = problem.shape.E;  // [D, 1, H, E]
      for (std::size_t i = 0; i < d.size(); ++i) {
        const std::int64_t h = static_cast<std::int64_t>(i) / E % H;
        const double log_decay = inputs.log_decay.absent() ? 0 : inputs.log_decay.at(h);
        EXPECT_NEAR(d[i], problem.scale * std::exp(log_decay) * m[i], 1e-13)
            << name_of(module) << " rank " << rank << " element " << i;
      }
    }
  }
}

}  // namespace
}  // namespace sp::test
