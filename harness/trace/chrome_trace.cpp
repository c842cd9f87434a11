// The trace-event format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>

#include "harness/results/atomic_file.hpp"
#include "harness/trace/timeline.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 4> kLanes{"compute", "send", "receive", "wait"};
std::string_view name_of(TraceLane lane) { return kLanes[static_cast<std::size_t>(lane)]; }

// Where a span is drawn. Whole nanoseconds, so that spans that touch do not overlap.
struct Event {
  const Span* span = nullptr;
  std::int64_t start_ns = 0, end_ns = 0;
  int pid = 1;
  int tid = 1;
};

Json at(std::int64_t ns) { return static_cast<double>(ns) / 1e3; }  // the format has microseconds

class Trace {
 public:
  Trace(const std::vector<Span>& spans, int devices_per_node)
      : spans_(spans), devices_per_node_(devices_per_node) {
    for (const Span& span : spans) first_s_ = std::min(first_s_, span.start_s);
    lay_out();
  }

  Json events() const {
    Json all = Json::array();
    name_processes(all);
    for (const Json& name : names_) all.push_back(name);
    for (const Event& event : events_) all.push_back(drawn(event));
    add_flows(all);
    add_counters(all);
    return all;
  }

 private:
  int pid_of(int rank) const {  // 0 would be the idle task
    return devices_per_node_ > 0 ? 1 + rank / devices_per_node_ : 1;
  }
  std::int64_t ns(double time_s) const { return std::llround((time_s - first_s_) * 1e9); }

  // Every span goes to the first lane of its rank and kind that is free.
  void lay_out() {
    std::vector<const Span*> order;
    for (const Span& span : spans_) order.push_back(&span);
    std::stable_sort(order.begin(), order.end(), [](const Span* a, const Span* b) {
      return std::tie(a->rank, a->lane, a->start_s) < std::tie(b->rank, b->lane, b->start_s);
    });
    std::vector<std::int64_t> free_at;  // of the lanes of this rank and kind
    int first_tid = 1;
    const Span* before = nullptr;
    for (const Span* span : order) {
      if (before == nullptr || before->rank != span->rank || before->lane != span->lane) {
        first_tid += static_cast<int>(free_at.size());
        free_at.clear();
      }
      before = span;
      const std::int64_t start = ns(span->start_s), end = std::max(start, ns(span->end_s));
      const auto lane = std::find_if(free_at.begin(), free_at.end(),
                                     [&](std::int64_t time) { return time <= start; });
      const int tid = first_tid + static_cast<int>(lane - free_at.begin());
      if (lane == free_at.end()) {
        free_at.push_back(end);
        name_lane(*span, tid, static_cast<int>(free_at.size()));
      } else {
        *lane = end;
      }
      events_.push_back({span, start, end, pid_of(span->rank), tid});
    }
  }

  void name_lane(const Span& span, int tid, int number) {
    std::string name = fmt::format("rank {} {}", span.rank, name_of(span.lane));
    if (number > 1) name += fmt::format(" {}", number);
    const int pid = pid_of(span.rank);
    names_.push_back({{"ph", "M"},
                      {"name", "thread_name"},
                      {"pid", pid},
                      {"tid", tid},
                      {"args", {{"name", name}}}});
    names_.push_back({{"ph", "M"},
                      {"name", "thread_sort_index"},
                      {"pid", pid},
                      {"tid", tid},
                      {"args", {{"sort_index", tid}}}});
  }

  void name_processes(Json& all) const {
    int last = 0;
    for (const Event& event : events_) last = std::max(last, event.pid);
    for (int pid = 1; pid <= last; ++pid) {
      all.push_back({{"ph", "M"},
                     {"name", "process_name"},
                     {"pid", pid},
                     {"args", {{"name", "node " + std::to_string(pid - 1)}}}});
      all.push_back({{"ph", "M"},
                     {"name", "process_sort_index"},
                     {"pid", pid},
                     {"args", {{"sort_index", pid}}}});
    }
  }

  static Json drawn(const Event& event) {
    const Span& span = *event.span;
    Json args{{"step", span.step}};
    if (span.lane == TraceLane::kCompute) {
      args = {{"flops", span.flops}};
    } else {
      args["channel"] = span.channel;
      if (span.lane != TraceLane::kWait) args["bytes"] = span.bytes;
      if (span.peer >= 0) args["peer"] = span.peer;
    }
    return {{"ph", "X"},
            {"name", span.name},
            {"cat", name_of(span.lane)},
            {"pid", event.pid},
            {"tid", event.tid},
            {"ts", at(event.start_ns)},
            {"dur", at(event.end_ns - event.start_ns)},
            {"args", args}};
  }

  // An arrow for every message: between two ranks those of one kind match in order.
  void add_flows(Json& all) const {
    using Key = std::tuple<int, int, int, std::string_view, int>;  // from, to, channel, name, step
    std::map<Key, std::vector<const Event*>> sends;
    for (const Event& event : events_) {
      const Span& span = *event.span;
      if (span.lane == TraceLane::kSend && span.peer >= 0)
        sends[{span.rank, span.peer, span.channel, span.name, span.step}].push_back(&event);
    }
    std::map<Key, std::size_t> matched;
    int id = 0;
    for (const Event& event : events_) {
      const Span& span = *event.span;
      if (span.lane != TraceLane::kReceive || span.peer < 0) continue;
      const Key key{span.peer, span.rank, span.channel, span.name, span.step};
      const auto found = sends.find(key);
      const std::size_t number = matched[key]++;
      if (found == sends.end() || number >= found->second.size()) continue;
      const Event& send = *found->second[number];
      const auto end_of = [&](const Event& where, const char* phase, std::int64_t time) {
        Json end{{"ph", phase},      {"name", span.name}, {"cat", "message"}, {"id", id},
                 {"pid", where.pid}, {"tid", where.tid},  {"ts", at(time)}};
        if (*phase == 'f') end["bp"] = "e";  // binds to the span around it, not to the next one
        all.push_back(std::move(end));
      };
      end_of(send, "s", send.start_ns);
      end_of(event, "f", std::max(event.start_ns, event.end_ns - 1));
      ++id;
    }
  }

  // Bytes that a node's ranks have posted and that have not yet left.
  void add_counters(Json& all) const {
    std::map<std::pair<int, std::int64_t>, std::int64_t> changes;  // by process and time
    for (const Event& event : events_) {
      if (event.span->lane != TraceLane::kSend) continue;
      changes[{event.pid, event.start_ns}] += event.span->bytes;
      changes[{event.pid, event.end_ns}] -= event.span->bytes;
    }
    std::map<int, std::int64_t> in_flight;
    for (const auto& [when, change] : changes) {
      in_flight[when.first] += change;
      all.push_back({{"ph", "C"},
                     {"name", "bytes in flight"},
                     {"pid", when.first},
                     {"ts", at(when.second)},
                     {"args", {{"bytes", in_flight[when.first]}}}});
    }
  }

  const std::vector<Span>& spans_;
  int devices_per_node_;
  double first_s_ = std::numeric_limits<double>::infinity();
  std::vector<Event> events_;
  std::vector<Json> names_;
};

}  // namespace

void write_chrome_trace(const std::string& path, const std::vector<Span>& spans,
                        int devices_per_node, const std::string& title, const std::string& kind) {
  SP_CHECK(kind == "measured" || kind == "simulated", "a timeline is measured or simulated");
  const Json trace{{"displayTimeUnit", "ms"},
                   {"otherData", {{"title", title}, {"kind", kind}}},
                   {"traceEvents", Trace(spans, devices_per_node).events()}};
  const std::string text = trace.dump() + "\n";
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

}  // namespace sp
