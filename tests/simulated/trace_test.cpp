// Timelines: what recorders see of a real run, and what the written file says when it is read back.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/cluster/simulation.hpp"
#include "harness/run/backend.hpp"
#include "harness/trace/record_run.hpp"
#include "harness/trace/timeline.hpp"
#include "optimized/algorithms/registry.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

using Json = nlohmann::json;

Json written(const std::vector<Span>& spans, int devices_per_node, const std::string& kind) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("trace.json");
  write_chrome_trace(path, spans, devices_per_node, "a title", kind);
  std::ifstream file(path);
  return Json::parse(file);
}

std::vector<Json> events_of(const Json& trace, const std::string& phase) {
  std::vector<Json> chosen;
  for (const Json& event : trace["traceEvents"])
    if (event["ph"] == phase) chosen.push_back(event);
  return chosen;
}

std::int64_t ns(const Json& microseconds) { return std::llround(1e3 * microseconds.get<double>()); }

std::pair<int, int> lane_of(const Json& event) {
  return {event["pid"].get<int>(), event["tid"].get<int>()};
}

// Spans of a lane follow each other; every lane has a name; arrows have two ends, each on a span.
void expect_well_formed(const Json& trace) {
  std::map<std::pair<int, int>, std::vector<std::pair<std::int64_t, std::int64_t>>> lanes;
  for (const Json& event : events_of(trace, "X"))
    lanes[lane_of(event)].emplace_back(ns(event["ts"]), ns(event["ts"]) + ns(event["dur"]));
  std::set<std::pair<int, int>> named;
  std::set<int> processes;
  for (const Json& event : events_of(trace, "M")) {
    if (event["name"] == "thread_name") named.insert(lane_of(event));
    if (event["name"] == "process_name") processes.insert(event["pid"].get<int>());
  }
  for (auto& [lane, spans] : lanes) {
    EXPECT_TRUE(named.contains(lane));
    EXPECT_TRUE(processes.contains(lane.first));
    std::sort(spans.begin(), spans.end());
    for (std::size_t i = 0; i < spans.size(); ++i) {
      EXPECT_GE(spans[i].first, 0);
      if (i > 0) {
        EXPECT_GE(spans[i].first, spans[i - 1].second) << "lane " << lane.second;
      }
    }
  }
  EXPECT_EQ(named.size(), lanes.size());
  std::map<int, Json> starts;
  for (const Json& start : events_of(trace, "s"))
    EXPECT_TRUE(starts.emplace(start["id"].get<int>(), start).second);
  const auto on_a_span = [&](const Json& event) {
    for (const auto& [begin, end] : lanes[lane_of(event)])
      if (begin <= ns(event["ts"]) && ns(event["ts"]) <= end) return true;
    return false;
  };
  const std::vector<Json> finishes = events_of(trace, "f");
  EXPECT_EQ(finishes.size(), starts.size());
  for (const Json& finish : finishes) {
    ASSERT_TRUE(starts.contains(finish["id"].get<int>()));
    const Json& start = starts[finish["id"].get<int>()];
    EXPECT_LE(ns(start["ts"]), ns(finish["ts"]));
    EXPECT_TRUE(on_a_span(start));
    EXPECT_TRUE(on_a_span(finish));
    EXPECT_EQ(finish["bp"], "e");
  }
  std::map<int, std::int64_t> in_flight;
  for (const Json& counter : events_of(trace, "C")) {
    in_flight[counter["pid"].get<int>()] = counter["args"]["bytes"].get<std::int64_t>();
    EXPECT_GE(in_flight[counter["pid"].get<int>()], 0);
  }
  for (const auto& [process, bytes] : in_flight) EXPECT_EQ(bytes, 0) << "all messages ended";
}

Span message(int rank, TraceLane lane, int peer, double start_s, double end_s) {
  return {.rank = rank,
          .lane = lane,
          .name = "k",
          .start_s = start_s,
          .end_s = end_s,
          .bytes = 8,
          .peer = peer};
}

TEST(ChromeTrace, ConcurrentSpansGetLanesOfTheirOwn) {
  const std::vector<Span> spans{message(0, TraceLane::kSend, 1, 1.0, 3.0),
                                message(0, TraceLane::kSend, 1, 2.0, 4.0),
                                message(0, TraceLane::kSend, 1, 3.0, 5.0)};
  const Json trace = written(spans, 0, "simulated");
  expect_well_formed(trace);
  std::vector<std::string> names;
  for (const Json& event : events_of(trace, "M"))
    if (event["name"] == "thread_name") names.push_back(event["args"]["name"]);
  EXPECT_EQ(names, (std::vector<std::string>{"rank 0 send", "rank 0 send 2"}));
  std::vector<int> in_flight;
  for (const Json& counter : events_of(trace, "C"))
    in_flight.push_back(counter["args"]["bytes"].get<int>());
  EXPECT_EQ(in_flight, (std::vector<int>{8, 16, 16, 8, 0}));
}

TEST(ChromeTrace, ArrowsMatchMessagesOfOneKindInOrder) {
  const std::vector<Span> spans{
      message(0, TraceLane::kSend, 5, 0.0, 2.0), message(0, TraceLane::kSend, 5, 3.0, 4.0),
      message(5, TraceLane::kReceive, 0, 0.5, 2.0), message(5, TraceLane::kReceive, 0, 2.5, 4.5),
      message(5, TraceLane::kReceive, 1, 0.0, 1.0)};
  const Json trace = written(spans, 4, "measured");
  expect_well_formed(trace);
  const std::vector<Json> starts = events_of(trace, "s"), finishes = events_of(trace, "f");
  ASSERT_EQ(starts.size(), 2u) << "what nobody sent has no arrow";
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(starts[i]["pid"], 1);
    EXPECT_EQ(finishes[i]["pid"], 2) << "rank 5 is in the second node of four";
  }
  EXPECT_EQ(ns(starts[0]["ts"]), 0);
  EXPECT_EQ(ns(starts[1]["ts"]), 3'000'000'000);
}

TEST(ChromeTrace, SaysWhatItIs) {
  const Json trace = written({}, 0, "simulated");
  EXPECT_EQ(trace["otherData"]["title"], "a title");
  EXPECT_EQ(trace["otherData"]["kind"], "simulated");
  EXPECT_TRUE(trace["traceEvents"].empty());
}

TEST(ChromeTrace, IsWrittenInTheSameOrderWhateverTheOrderOfAdding) {
  Timeline forward, backward;
  std::vector<Span> spans;
  for (int rank = 0; rank < 3; ++rank)
    for (int i = 0; i < 4; ++i)
      spans.push_back(message(rank, TraceLane::kSend, (rank + 1) % 3, i, i + 1.5));
  for (auto span = spans.begin(); span != spans.end(); ++span) forward.add(*span);
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) backward.add(*span);
  EXPECT_EQ(written(forward.take(), 2, "simulated"), written(backward.take(), 2, "simulated"));
}

Case small_case(int ranks, int ranks_per_node) {
  Case drawn;
  drawn.problem.shape = {.B = 1, .N = 24, .H = 4, .G = 4, .D = 8, .E = 8};
  drawn.problem.mask.causal = true;
  drawn.problem.scale = 0.5;
  drawn.world = {ranks, ranks_per_node, 1};
  return drawn;
}

struct Sums {
  std::int64_t sent = 0, flops = 0;
};
std::map<int, Sums> sums_of(const std::vector<Span>& spans) {
  std::map<int, Sums> ranks;
  for (const Span& span : spans) {
    EXPECT_LE(span.start_s, span.end_s);
    if (span.lane == TraceLane::kSend) ranks[span.rank].sent += span.bytes;
    if (span.lane == TraceLane::kCompute) ranks[span.rank].flops += span.flops;
  }
  return ranks;
}

class Recording : public ::testing::TestWithParam<const char*> {};

// What the spans of a rank add up to is what the algorithm says that it costs.
TEST_P(Recording, MissesNoByteAndNoFlop) {
  const Algorithm* algorithm = find_algorithm(GetParam());
  ASSERT_NE(algorithm, nullptr);
  const auto backend = make_thread_backend();
  Case drawn = small_case(4, 2);
  const std::vector<Span> spans = record_run(*backend, *algorithm, drawn, make_inputs(drawn));
  const Layout layout(algorithm->sharding, drawn.problem.shape.N, drawn.world.size);
  const std::map<int, Sums> ranks = sums_of(spans);
  ASSERT_EQ(ranks.size(), 4u);
  for (const auto& [rank, sums] : ranks) {
    const Cost cost = algorithm->cost(drawn.problem, layout, drawn.world, rank);
    EXPECT_EQ(sums.sent, cost.forward.bytes_sent + cost.backward.bytes_sent) << rank;
    EXPECT_EQ(sums.flops, cost.forward.flops + cost.backward.flops) << rank;
  }
  expect_well_formed(written(spans, 0, "measured"));
}

INSTANTIATE_TEST_SUITE_P(Algorithms, Recording,
                         ::testing::Values("ring/zigzag", "token_ring/zigzag", "ulysses",
                                           "allgather", "rsa"),
                         [](const auto& each) {
                           std::string name = each.param;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

TEST(Recorders, EveryReceiveOfARingHasItsArrow) {
  const auto backend = make_thread_backend();
  const Case drawn = small_case(3, 1);
  const std::vector<Span> spans =
      record_run(*backend, *find_algorithm("ring/contiguous"), drawn, make_inputs(drawn));
  std::size_t receives = 0;
  for (const Span& span : spans) receives += span.lane == TraceLane::kReceive ? 1 : 0;
  EXPECT_GT(receives, 0u);
  EXPECT_EQ(events_of(written(spans, 0, "measured"), "s").size(), receives);
}

std::vector<Span> simulated(const char* algorithm, int ranks) {
  const Platform platform = find_platform("dgx_a100");
  Problem problem;
  problem.shape = {.B = 1, .N = 1 << 14, .H = 16, .G = 16, .D = 128, .E = 128};
  problem.dtype = DType::kBF16;
  problem.mask.causal = true;
  Timeline timeline(platform.node.devices);
  SimulationOptions options;
  options.timeline = &timeline;
  const Prediction prediction =
      simulate(platform, *find_algorithm(algorithm), problem, {ranks, 8, 1}, options);
  EXPECT_EQ(prediction.status, RowStatus::kOk) << prediction.reason;
  return timeline.take();
}

// Two nodes of eight, so that there are two processes.
TEST(SimulatedTimeline, IsWellFormedAndTheSameTwice) {
  for (const char* algorithm : {"ring/zigzag", "token_ring/zigzag", "ulysses", "allgather"}) {
    SCOPED_TRACE(algorithm);
    const Json trace = written(simulated(algorithm, 16), 8, "simulated");
    expect_well_formed(trace);
    if (std::string(algorithm).find("ring") != std::string::npos) {
      EXPECT_FALSE(events_of(trace, "s").empty()) << "collectives have no peers";
    }
    std::set<int> processes;
    for (const Json& event : events_of(trace, "X")) processes.insert(event["pid"].get<int>());
    EXPECT_EQ(processes, (std::set<int>{1, 2}));
    EXPECT_EQ(trace, written(simulated(algorithm, 16), 8, "simulated"));
  }
}

// Peers in a communicator that was split off are told as ranks of the world.
TEST(Recorders, NamePeersByTheirRankInTheWorld) {
  Timeline timeline;
  make_thread_backend()->run(4, recording({}, timeline), [](Machine& machine) {
    const int rank = machine.comm.rank();
    const auto half = machine.comm.split(rank % 2, rank);
    const Tensor out = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "out");
    const Tensor in = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "in");
    machine.kernels.fill(out, 1);
    const int peer = 1 - half->rank();
    half->exchange({{peer, out, {"k", 7}}}, {{peer, in, {"k", 7}}}).wait();
  });
  int messages = 0;
  for (const Span& span : timeline.take()) {
    if (span.lane == TraceLane::kCompute) continue;
    EXPECT_EQ(span.step, 7);
    EXPECT_EQ(span.channel, 1);
    if (span.lane == TraceLane::kWait) continue;
    EXPECT_EQ(span.peer, (span.rank + 2) % 4);
    EXPECT_EQ(span.bytes, 16);
    ++messages;
  }
  EXPECT_EQ(messages, 8);
}

// The recorders stand outside what a test puts into the rig, and leave it in place.
TEST(Recorders, KeepWhatTheRigWraps) {
  std::atomic<int> wrapped = 0;
  Rig rig;
  rig.wrap_communicator = [&](Communicator&) -> std::unique_ptr<Communicator> {
    ++wrapped;
    throw Error(ErrorKind::kInternal, "the inner wrapper was asked");
  };
  Timeline timeline;
  EXPECT_THROW(make_thread_backend()->run(1, recording(rig, timeline), [](Machine&) {}), Error);
  EXPECT_EQ(wrapped, 1);
}

}  // namespace
}  // namespace sp
