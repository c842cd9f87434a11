// TokenRing, what its paper does not show: rings that send the same bytes on two channels or in two
// directions, grouped heads, other machines, 2 to 64 GPUs, and where the times cross.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "harness/papers/token_ring/comparison.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3, kMega = 1e6;
constexpr const char* kControls[] = {kRing, "ring_two_channel/zigzag", "ring_bidirectional/zigzag"};

struct Settings {
  std::int64_t heads, key_heads, head_size;
  std::vector<std::int64_t> lengths;
};

struct Machine {
  std::string title;
  int ranks;
  Stopwatch watch;
};

struct Growth {
  std::string title;
  std::int64_t tokens;
  std::vector<int> ranks;
  std::vector<double> forward, both;  // advantage over the ring
};

// Machines of the config, in this order.
constexpr std::size_t kCase = 0, kWires = 1, kSwitch = 2, kMesh = 3, kMachines = 4;

class Controls {
 public:
  explicit Controls(const ReplayContext& context)
      : context_(context),
        config_(context.config),
        settings_{config_.integer("heads", 1, 1024), config_.integer("key_heads", 1, 1024),
                  config_.integer("head_size", 1, 1024), config_.sizes("lengths", 1)},
        case_tokens_(config_.table("case_study").size("tokens", 1)) {
    for (const Config& table : config_.tables("machine")) {
      Platform platform = find_platform(table.text("platform"));
      if (table.flag("channels_as_wires", false)) platform.comm.channel_bandwidth = 0;
      const int ranks = static_cast<int>(table.integer("ranks", 2, platform.devices()));
      machines_.push_back({table.text("title"), ranks,
                           Stopwatch(std::move(platform), settings_.heads, settings_.head_size)});
    }
    if (machines_.size() != kMachines)
      config_.refuse("machine", "a case study, the same without channels, a switch and a mesh");
  }
  ReplayResult run() {
    case_study();
    for (std::size_t index = 0; index < kMachines; ++index) {
      for (const std::int64_t key_heads : {settings_.heads, settings_.key_heads}) {
        for (const Passes passes : {Passes::kForward, Passes::kBoth})
          crossings(index, key_heads, passes);
        curves(machines_[index], key_heads);
      }
      context_.progress(++done_, std::ssize(machines_) + 2);
    }
    const std::vector<Growth> in_mesh = growth("mesh"), across = growth("nodes");
    claims(in_mesh, across);
    findings(across);
    result_.assumption =
        "Rates of channels: measured on A10, from NCCL's own model on A100; attention slows beside "
        "two exchanges on A10 alone, where that was fitted. Backward of TokenRing is this "
        "project's design. Differences below the band of a platform are tendencies.";
    return std::move(result_);
  }

 private:
  void row(const std::string& label, const std::string& quantity, double ours, double band,
           const char* unit = "ms") {
    result_.rows.push_back(context_row(label, quantity, unit, ours, Provenance::kSimulated));
    result_.rows.back().band = band;
  }

  // The same layer on the machine of the case study, by every control.
  void case_study() {
    for (const std::size_t m : {kCase, kWires}) {
      Machine& machine = machines_[m];
      for (const std::string& id : {std::string(kControls[0]), std::string(kControls[1]),
                                    std::string(kControls[2]), std::string(kTokenRing)}) {
        const std::string label = fmt::format("{}, {} tokens, {}", machine.title, case_tokens_, id);
        for (const Passes passes : {Passes::kForward, Passes::kBoth}) {
          row(label, name_of(passes),
              machine.watch.seconds(id, machine.ranks, case_tokens_, settings_.heads, passes) /
                  kMilli,
              machine.watch.platform().band);
        }
        if (m != kCase) continue;
        result_.rows.push_back(context_row(
            label, "sent by a rank in forward, mean", "MB",
            machine.watch.sent(id, machine.ranks, case_tokens_, settings_.heads, Passes::kForward) /
                kMega,
            Provenance::kCounted));
      }
    }
    const auto forward = [&](std::size_t m, const char* id) {
      return machines_[m].watch.seconds(id, machines_[m].ranks, case_tokens_, settings_.heads,
                                        Passes::kForward) /
             kMilli;
    };
    result_.findings.push_back(fmt::format(
        "On 4 A10 at {} tokens TokenRing takes {:.1f} ms forward, the ring {:.1f} ms, but the ring "
        "on two channels {:.1f} ms: the case study shows the second channel more than the "
        "algorithm.",
        case_tokens_, forward(kCase, kTokenRing), forward(kCase, kRing),
        forward(kCase, kControls[1])));
    result_.findings.push_back(fmt::format(
        "With channels as fast as wires the ring takes {:.1f} ms and TokenRing {:.1f} ms, whose "
        "last return has nothing to hide behind.",
        forward(kWires, kRing), forward(kWires, kTokenRing)));
  }

  std::string heads(std::int64_t key_heads) const {
    return fmt::format("{} of {} key heads", key_heads, settings_.heads);
  }

  void crossings(std::size_t index, std::int64_t key_heads, Passes passes) {
    Machine& machine = machines_[index];
    const double band = machine.watch.platform().band;
    const std::string label =
        fmt::format("{}, {}, {}", machine.title, heads(key_heads), name_of(passes));
    for (const char* control : kControls) {
      row(label, fmt::format("largest advantage over {}", control),
          most(index, control, key_heads, passes), band, "1");
      const auto range =
          faster_range(machine.watch, control, machine.ranks, settings_.lengths, key_heads, passes);
      if (!range) continue;
      const auto bound = [&](const char* which, std::int64_t tokens) {
        row(label, fmt::format("faster than {} {}", control, which), static_cast<double>(tokens),
            band, "token");
      };
      if (!range->from_first) bound("from", range->from);
      if (!range->to_last) bound("up to", range->to);
    }
  }

  // Of every algorithm, relative to the ring.
  void curves(Machine& machine, std::int64_t key_heads) {
    for (const Passes passes : {Passes::kForward, Passes::kBoth}) {
      for (const char* id : {kControls[1], kControls[2], kTokenRing}) {
        ReplayCurve curve;
        curve.plot = fmt::format("{}, {}, {}", machine.title, heads(key_heads), name_of(passes));
        curve.name = id;
        curve.x = "sequence length (tokens)";
        curve.y = "speed relative to ring/zigzag (1)";
        for (const std::int64_t tokens : settings_.lengths) {
          curve.xs.push_back(static_cast<double>(tokens));
          curve.ys.push_back(
              machine.watch.seconds(kRing, machine.ranks, tokens, key_heads, passes) /
              machine.watch.seconds(id, machine.ranks, tokens, key_heads, passes));
        }
        result_.curves.push_back(std::move(curve));
      }
    }
  }

  // Times for more and more GPUs; TokenRing's advantage over the ring in forward, by length.
  std::vector<Growth> growth(const char* key) {
    const Config table = config_.table(key);
    const Platform platform = find_platform(table.text("platform"));
    const std::vector<std::int64_t> ranks = table.integers("ranks", 2, platform.devices());
    const std::vector<std::string> ids = table.texts("algorithms");
    Stopwatch watch(platform, settings_.heads, settings_.head_size);
    std::vector<Growth> all;
    for (const std::int64_t tokens : table.sizes("tokens", 1)) {
      Growth growth{platform.title, tokens, {}, {}, {}};
      for (const std::int64_t size : ranks) {
        const int P = static_cast<int>(size);
        growth.ranks.push_back(P);
        for (const Passes passes : {Passes::kForward, Passes::kBoth}) {
          const double advantage = watch.advantage(kRing, P, tokens, settings_.heads, passes);
          row(fmt::format("{}, {}K tokens, {} GPUs", platform.name, tokens / 1024, P),
              fmt::format("advantage over {}, {}", kRing, name_of(passes)), advantage,
              platform.band, "1");
          (passes == Passes::kForward ? growth.forward : growth.both).push_back(advantage);
        }
      }
      for (const std::string& id : ids) {
        ReplayCurve curve{
            fmt::format("{}, {}K tokens, forward and backward", platform.title, tokens / 1024),
            id,
            "GPUs (1)",
            "time (ms)",
            false,
            Provenance::kSimulated,
            {},
            {}};
        for (const int P : growth.ranks) {
          curve.xs.push_back(P);
          curve.ys.push_back(watch.seconds(id, P, tokens, settings_.heads, Passes::kBoth) / kMilli);
        }
        row(fmt::format("{}, {}K tokens, {} GPUs", platform.name, tokens / 1024,
                        growth.ranks.back()),
            fmt::format("{}, forward and backward", id), curve.ys.back(), platform.band);
        result_.curves.push_back(std::move(curve));
      }
      all.push_back(std::move(growth));
    }
    context_.progress(++done_, std::ssize(machines_) + 2);
    return all;
  }

  double most(std::size_t machine, const char* over, std::int64_t key_heads, Passes passes) {
    Machine& m = machines_[machine];
    double advantage = 0;
    for (const std::int64_t tokens : settings_.lengths)
      advantage = std::max(advantage, m.watch.advantage(over, m.ranks, tokens, key_heads, passes));
    return advantage;
  }

  void claims(const std::vector<Growth>& in_mesh, const std::vector<Growth>& across);
  void findings(const std::vector<Growth>& across);

  const ReplayContext& context_;
  const Config& config_;
  Settings settings_;
  std::int64_t case_tokens_;
  std::vector<Machine> machines_;
  std::int64_t done_ = 0;
  ReplayResult result_;
};

// Within what two simulated times may differ and still count as equal.
constexpr double kEqual = 0.01;

bool grows(const std::vector<double>& values) {
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (values[i] < values[i - 1] * (1 - kEqual)) return false;
  }
  return values.back() > values.front() * (1 + kEqual);
}

void Controls::claims(const std::vector<Growth>& in_mesh, const std::vector<Growth>& across) {
  const PaperTable table = table_of(config_, "claims");
  const auto judge = [&](std::size_t claim, const std::string& test, bool holds,
                         const std::string& reason) {
    if (claim >= table.rows()) config_.refuse("claims", "too few rows");
    result_.rows.push_back(
        claim_row(fmt::format("{}: {}", table.text(claim, "claim"), table.text(claim, "statement")),
                  test, holds, Provenance::kSimulated, reason, table.grade(claim)));
  };
  Machine& cards = machines_[kCase];
  const double advantage =
      cards.watch.advantage(kRing, cards.ranks, case_tokens_, settings_.heads, Passes::kForward);
  judge(0, fmt::format("faster than {} on the machine of the case study, forward", kRing),
        advantage > 1, fmt::format("{:.2f} times as fast", advantage));
  for (const std::vector<Growth>* growths : {&in_mesh, &across}) {
    for (const Growth& growth : *growths) {
      judge(1,
            fmt::format("forward, {}, {}K tokens, {} to {} GPUs", growth.title,
                        growth.tokens / 1024, growth.ranks.front(), growth.ranks.back()),
            grows(growth.forward),
            fmt::format("{:.2f} times as fast as the ring on {} GPUs",
                        fmt::join(growth.forward, ", "), fmt::join(growth.ranks, ", ")));
    }
  }
  const double in_switch = most(kSwitch, kRing, settings_.heads, Passes::kForward);
  const double mesh = most(kMesh, kRing, settings_.heads, Passes::kForward);
  judge(2, "forward, 8 A100, largest advantage on a mesh against a switch", mesh > in_switch,
        fmt::format("{:.2f} against {:.2f}", mesh, in_switch));
  judge(3, fmt::format("forward, 8 A100 on NVSwitch, faster than {} at some length", kRing),
        in_switch > 1,
        fmt::format("{:.3f} times as fast at best: every port of a switch is busy in both "
                    "directions already",
                    in_switch));
}

void Controls::findings(const std::vector<Growth>& across) {
  const std::int64_t all = settings_.heads;
  double grouped = 0;
  for (std::size_t machine = 0; machine < kMachines; ++machine) {
    for (const Passes passes : {Passes::kForward, Passes::kBoth})
      grouped = std::max(grouped, most(machine, kRing, settings_.key_heads, passes));
  }
  result_.findings.push_back(fmt::format(
      "Forward, 8 A100 and {} key heads: against the ring at best {:.2f} times as fast on a mesh, "
      "where queries and results use different wires, and {:.3f} on a switch, where they share the "
      "ports that the ring fills too.",
      all, most(kMesh, kRing, all, Passes::kForward), most(kSwitch, kRing, all, Passes::kForward)));
  result_.findings.push_back(fmt::format(
      "With backward at best {:.2f} times on 4 A10, {:.2f} on a mesh and {:.2f} on a switch: dQ of "
      "a trimmed shard travels once, dK and dV of the ring travel in f32 on every hop.",
      most(kCase, kRing, all, Passes::kBoth), most(kMesh, kRing, all, Passes::kBoth),
      most(kSwitch, kRing, all, Passes::kBoth)));
  result_.findings.push_back(fmt::format(
      "With {}, the ring moves a fraction of the bytes and TokenRing does not: its best on any "
      "machine, in forward or with backward, is {:.3f} times the speed of the ring.",
      heads(settings_.key_heads), grouped));
  const double halves = most(kMesh, kControls[2], all, Passes::kForward);
  result_.findings.push_back(
      halves > most(kMesh, kRing, all, Passes::kForward)
          ? std::string("ring_bidirectional gains nothing from the second direction: both halves "
                        "of a block wait their turn on one communicator.")
          : fmt::format("Half of every block each way uses a mesh too: TokenRing is at best {:.2f} "
                        "times as fast as that.",
                        halves));
  const Growth& longest = across.back();
  result_.findings.push_back(fmt::format(
      "{} GPUs in nodes, {}K tokens: TokenRing is {:.2f} times as fast as the ring in forward, "
      "{:.2f} times with backward; rings inside nodes are faster than both (curves).",
      longest.ranks.back(), longest.tokens / 1024, longest.forward.back(), longest.both.back()));
}

ReplayResult run(const ReplayContext& context) { return Controls(context).run(); }

}  // namespace

const ReplayItem kTokenRingControls{
    "token_ring/controls", "TokenRing against rings on two channels, on other machines, to 64 GPUs",
    "Wang, Liu, Li, Jiang 2024, TokenRing, arXiv:2412.20501; controls of this project", run};

}  // namespace sp
