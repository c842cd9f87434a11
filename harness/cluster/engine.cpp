// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/engine.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <mutex>
#include <numeric>
#include <simgrid/Exception.hpp>
#include <simgrid/s4u.hpp>
#include <span>
#include <string>
#include <utility>

namespace sp {
namespace {

namespace s4u = simgrid::s4u;

// Work is counted in picoseconds of a device at full speed, so that the engine's absolute precision
// of work never shows.
constexpr double kSpeed = 1e12;
// Links of channels are made before the first communicator: this many per device and direction;
// later communicators share them in turn.
constexpr int kChannels = 4;
// The engine searches all flows that a task has started whenever one of them ends: many flows are
// dealt to several tasks.
constexpr std::size_t kFlowsOfATask = 64;
constexpr unsigned kStreamStack = 256 * 1024;

std::mutex& one_at_a_time() {
  static std::mutex mutex;
  return mutex;
}

// SimGrid puts handlers of its own in place, which would change what Ctrl-C and crashes do.
class SignalsKept {
 public:
  SignalsKept() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], nullptr, &kept_[i]);
  }
  ~SignalsKept() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &kept_[i], nullptr);
  }
  SignalsKept(const SignalsKept&) = delete;
  SignalsKept& operator=(const SignalsKept&) = delete;

 private:
  static constexpr std::array<int, 3> kSignals{SIGINT, SIGSEGV, SIGBUS};
  std::array<struct sigaction, kSignals.size()> kept_{};
};

// What the engine keeps for the life of a process and has no call for; null where it is elsewhere.
template <class T>
T* kept_by_engine(const char* symbol) {
  return static_cast<T*>(dlsym(RTLD_DEFAULT, symbol));
}

// The clock goes on from one engine to the next, and its rounding with it: times would depend on
// what was simulated before.
void reset_clock() {
  if (auto* now = kept_by_engine<double>("_ZN7simgrid6kernel10EngineImpl4now_E")) *now = 0;
}

// Every engine connects the handlers of its model of virtual machines anew, and each event runs
// them all: without virtual machines for nothing, and after a thousand simulations at ten times
// the cost of the first.
void disconnect_virtual_machines() {
  using OfActivity = simgrid::xbt::signal<void(const s4u::Activity&)>;
  for (const char* symbol :
       {"_ZN7simgrid3s4u8Activity13on_completionE", "_ZN7simgrid3s4u8Activity10on_resumedE",
        "_ZN7simgrid3s4u8Activity12on_suspendedE"}) {
    if (auto* signal = kept_by_engine<OfActivity>(symbol)) signal->disconnect_slots();
  }
  using OfExec = simgrid::xbt::signal<void(const s4u::Exec&)>;
  if (auto* signal = kept_by_engine<OfExec>("_ZN7simgrid3s4u4Exec8on_startE")) {
    signal->disconnect_slots();
  }
  s4u::Host::on_state_change.disconnect_slots();
}

#ifdef SP_SANITIZED
// Actors are threads there, of which one runs at a time: handing over within a core takes half as long.
void stay_on_one_core() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof one, &one);
}
#endif

s4u::Engine* make_engine() {
  reset_clock();
  disconnect_virtual_machines();
  const SignalsKept signals;
  std::vector<std::string> words{"seqpar", "--cfg=network/model:CM02", "--cfg=network/TCP-gamma:0",
                                 "--cfg=network/crosstraffic:0"};
#ifdef SP_SANITIZED
  words.push_back("--cfg=contexts/factory:thread");
  stay_on_one_core();
#endif
  // What it says of deadlocks is said better by us. Opened once: settings of the log stay.
  static bool silent = false;
  if (!std::exchange(silent, true)) words.push_back("--log=root.app:file:/dev/null");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  return new s4u::Engine(&count, arguments.data());  // deletes itself in shutdown()
}

// What the engine calls when all tasks wait: its signal cannot be disconnected from.
const std::function<void()>*& stuck_handler() {
  static const std::function<void()>* handler = nullptr;
  return handler;
}

void connect_stuck_handler() {
  static const bool connected = [] {
    s4u::Engine::on_deadlock_cb([] {
      if (stuck_handler() != nullptr) (*stuck_handler())();
    });
    return true;
  }();
  static_cast<void>(connected);
}

}  // namespace

struct Gate::Parts {
  s4u::SemaphorePtr semaphore = s4u::Semaphore::create(0);
};
Gate::Gate() : parts_(std::make_unique<Parts>()) {}
Gate::~Gate() = default;
void Gate::open() { parts_->semaphore->release(); }
void Gate::pass() { parts_->semaphore->acquire(); }

struct SimEngine::Parts {
  std::lock_guard<std::mutex> turn{one_at_a_time()};
  s4u::Engine* engine = make_engine();
  int ranks = 0, channels = 1;
  std::vector<s4u::Host*> hosts;      // [rank * channels + channel]; kernels run on the first
  std::vector<double> compute_share;  // of the platform
  std::vector<int> moving;            // communicators per rank
  std::int64_t flow_bytes = 0;

  s4u::Host* host(int rank, int channel = 0) const {
    return hosts[static_cast<std::size_t>(rank * channels + channel % channels)];
  }
  s4u::CommPtr start(const Flow& flow) {
    flow_bytes += flow.bytes;
    const s4u::CommPtr comm =
        s4u::Comm::sendto_init(host(flow.from, flow.channel), host(flow.to, flow.channel));
    comm->set_payload_size(static_cast<std::uint64_t>(flow.bytes));
    comm->start();
    return comm;
  }
  void set_speed(int rank) const {
    const auto most = static_cast<int>(compute_share.size());
    const int state = std::min(moving[static_cast<std::size_t>(rank)], most);
    if (most > 0) host(rank)->set_pstate(static_cast<unsigned long>(state));
  }
};

SimEngine::SimEngine(const Platform& platform, const WireMap& wires,
                     const std::vector<int>& devices)
    : parts_(std::make_unique<Parts>()) {
  connect_stuck_handler();
  Parts& p = *parts_;
  p.ranks = static_cast<int>(devices.size());
  p.compute_share = platform.comm.compute_share;
  p.moving.assign(devices.size(), 0);
  const double channel_bandwidth = platform.comm.channel_bandwidth;
  if (channel_bandwidth > 0) p.channels = kChannels;

  s4u::NetZone* zone = s4u::create_full_zone("cluster");
  std::vector<double> speeds{kSpeed};
  for (const double share : p.compute_share) speeds.push_back(kSpeed * share);
  std::vector<const s4u::Link*> links, out, in;
  for (std::size_t i = 0; i < wires.links.size(); ++i) {
    links.push_back(zone->create_link(fmt::format("wire {}", i), wires.links[i].bandwidth)->seal());
  }
  for (int rank = 0; rank < p.ranks; ++rank) {
    for (int channel = 0; channel < p.channels; ++channel) {
      const std::string name = fmt::format("rank {} channel {}", rank, channel);
      p.hosts.push_back(zone->create_host(name, speeds)->seal());
      if (channel_bandwidth <= 0) continue;
      out.push_back(zone->create_link(name + " out", channel_bandwidth)->seal());
      in.push_back(zone->create_link(name + " in", channel_bandwidth)->seal());
    }
  }
  for (int from = 0; from < p.ranks; ++from) {
    for (int to = 0; to < p.ranks; ++to) {
      if (from == to) continue;
      for (int channel = 0; channel < p.channels; ++channel) {
        std::vector<s4u::LinkInRoute> route;
        for (const int link : wires.route(devices[static_cast<std::size_t>(from)],
                                          devices[static_cast<std::size_t>(to)])) {
          route.emplace_back(links[static_cast<std::size_t>(link)]);
        }
        if (channel_bandwidth > 0) {
          route.emplace_back(out[static_cast<std::size_t>(from * p.channels + channel)]);
          route.emplace_back(in[static_cast<std::size_t>(to * p.channels + channel)]);
        }
        zone->add_route(p.host(from, channel)->get_netpoint(), p.host(to, channel)->get_netpoint(),
                        nullptr, nullptr, route, false);
      }
    }
  }
  zone->seal();
}

SimEngine::~SimEngine() {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // there is no other way to a second one
  parts_->engine->shutdown();
#pragma GCC diagnostic pop
}

void SimEngine::start_rank(int rank, std::function<void()> task, std::function<void()> failed) {
  s4u::Actor::create(fmt::format("rank {}", rank), parts_->host(rank), [task, failed] {
    try {
      task();
    } catch (const simgrid::ForcefulKillException&) {
      throw;  // abandoned: the engine unwinds the task
    } catch (...) {
      failed();
    }
  });
}

void SimEngine::start_stream(int rank, std::function<void()> task) {
  const s4u::ActorPtr actor =
      s4u::Actor::init(fmt::format("stream of rank {}", rank), parts_->host(rank));
  actor->set_stacksize(kStreamStack);
  actor->start(std::move(task));
  actor->daemonize();
}

void SimEngine::run(const std::function<void()>& stuck) {
  stuck_handler() = &stuck;
  parts_->engine->run();
  stuck_handler() = nullptr;
}

double SimEngine::now() const { return s4u::Engine::get_clock(); }

void SimEngine::sleep(double seconds) {
  if (seconds > 0) s4u::this_actor::sleep_for(seconds);
}

void SimEngine::compute(int rank, double seconds) {
  if (seconds > 0) parts_->host(rank)->execute(seconds * kSpeed);
}

void SimEngine::begin_moving(int rank) {
  ++parts_->moving[static_cast<std::size_t>(rank)];
  parts_->set_speed(rank);
}

void SimEngine::end_moving(int rank) {
  --parts_->moving[static_cast<std::size_t>(rank)];
  parts_->set_speed(rank);
}

void SimEngine::move(const std::vector<Flow>& flows,
                     const std::function<void(std::size_t)>& arrived) {
  std::vector<std::size_t> order(flows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return flows[a].delay_s < flows[b].delay_s;
  });
  const double begin = now();
  std::vector<s4u::CommPtr> active;
  std::vector<std::size_t> indices;  // of the active ones
  std::size_t next = 0;
  const auto start_next = [&] {
    const std::size_t index = order[next++];
    if (flows[index].bytes == 0) return arrived(index);
    active.push_back(parts_->start(flows[index]));
    indices.push_back(index);
  };
  while (next < order.size() || !active.empty()) {
    constexpr double kForever = -1;
    const double wait =
        next < order.size() ? std::max(begin + flows[order[next]].delay_s - now(), 0.0) : kForever;
    if (active.empty()) sleep(wait);
    if (active.empty() || wait == 0) {
      start_next();
      continue;
    }
    const auto ended = s4u::Comm::wait_any_for(active, wait);
    if (ended < 0) {
      start_next();
      continue;
    }
    const std::size_t index = indices[static_cast<std::size_t>(ended)];
    active.erase(active.begin() + ended);
    indices.erase(indices.begin() + ended);
    arrived(index);
  }
}

void SimEngine::move(const std::vector<Flow>& flows) {
  const auto move_some = [this](std::span<const Flow> some) {
    std::vector<s4u::CommPtr> active;
    for (const Flow& flow : some) {
      if (flow.bytes > 0) active.push_back(parts_->start(flow));
    }
    for (const s4u::CommPtr& comm : active) comm->wait();
  };
  const std::span<const Flow> all(flows);
  Gate ended;
  std::size_t helpers = 0;
  for (std::size_t begin = kFlowsOfATask; begin < all.size(); begin += kFlowsOfATask, ++helpers) {
    start_stream(all[begin].from, [&move_some, &ended, all, begin] {
      move_some(all.subspan(begin, std::min(kFlowsOfATask, all.size() - begin)));
      ended.open();
    });
  }
  move_some(all.first(std::min(kFlowsOfATask, all.size())));
  for (; helpers > 0; --helpers) ended.pass();
}

void SimEngine::abandon() { s4u::Actor::kill_all(); }

std::int64_t SimEngine::flow_bytes() const { return parts_->flow_bytes; }

}  // namespace sp
