// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/collective_plan.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace sp {
namespace {

using Parts = std::vector<std::int64_t>;

std::int64_t sum_of(const Parts& parts) {
  return std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
}
std::int64_t part(const Parts& parts, int rank) { return parts[static_cast<std::size_t>(rank)]; }

// What one hop of a ring carries over all steps.
enum class Passing : std::uint8_t {
  kGather,  // everything but what the receiver contributed
  kReduce,  // everything but what the sender is left with
  kBoth,
};

std::int64_t passed(Passing passing, std::int64_t total, std::int64_t of_sender,
                    std::int64_t of_receiver) {
  std::int64_t bytes = 0;
  if (passing != Passing::kReduce) bytes += total - of_receiver;
  if (passing != Passing::kGather) bytes += total - of_sender;
  return bytes;
}

Passing passing_of(Pattern pattern) {
  if (pattern == Pattern::kAllReduce) return Passing::kBoth;
  return pattern == Pattern::kReduceScatter ? Passing::kReduce : Passing::kGather;
}

int steps_of(Passing passing, std::size_t ranks) {
  return static_cast<int>(ranks - 1) * (passing == Passing::kBoth ? 2 : 1);
}

// One ring over `order`, whose i-th member stands for parts[i].
void add_ring(std::vector<Hop>& hops, const std::vector<int>& order, const Parts& parts,
              Passing passing) {
  const std::int64_t total = sum_of(parts);
  for (std::size_t i = 0; i < order.size() && order.size() > 1; ++i) {
    const std::size_t next = (i + 1) % order.size();
    hops.push_back({order[i], order[next], passed(passing, total, parts[i], parts[next])});
  }
}

}  // namespace

CollectivePlanner::CollectivePlanner(const Platform& platform, const WireMap& wires,
                                     std::vector<int> devices)
    : platform_(platform), wires_(wires), devices_(std::move(devices)) {
  std::map<int, std::vector<int>> nodes;
  for (int rank = 0; rank < ranks(); ++rank) {
    const int device = devices_[static_cast<std::size_t>(rank)];
    const bool one = platform.node.wiring == Wiring::kTorus;
    nodes[one ? 0 : device / platform.node.devices].push_back(rank);
  }
  for (auto& [number, members] : nodes) nodes_.push_back(std::move(members));
  const std::size_t local = nodes_.front().size();
  even_ = nodes_.size() > 1 && local > 1 &&
          std::ranges::all_of(nodes_, [&](const auto& node) { return node.size() == local; });
  for (std::size_t ring = 0; ring < (even_ ? local : 1); ++ring) {
    std::vector<int>& order = rings_.emplace_back();
    for (const std::vector<int>& node : nodes_) {
      for (std::size_t i = 0; i < node.size(); ++i) order.push_back(node[(ring + i) % node.size()]);
    }
  }
}

double CollectivePlanner::latency_s(const Hop& hop) const {
  return wires_.latency(devices_[static_cast<std::size_t>(hop.from)],
                        devices_[static_cast<std::size_t>(hop.to)]);
}

Stage CollectivePlanner::stage(int steps, std::vector<Hop> hops) const {
  Stage made{steps, 0, std::move(hops)};
  for (const Hop& hop : made.hops) made.latency_s = std::max(made.latency_s, latency_s(hop));
  return made;
}

double CollectivePlanner::mean_latency_s(const std::vector<Hop>& hops) const {
  double sum = 0;
  for (const Hop& hop : hops) sum += latency_s(hop);
  return hops.empty() ? 0 : sum / static_cast<double>(hops.size());
}

CollectivePlan CollectivePlanner::ring(const CollectiveBytes& bytes) const {
  std::map<std::pair<int, int>, std::int64_t> loads;  // rings that share a hop are one flow
  if (bytes.pattern == Pattern::kBroadcast) {
    std::vector<Hop> hops;
    const std::vector<int> order = from_root(bytes.root);
    for (std::size_t i = 1; i < order.size(); ++i) {
      hops.push_back({order[i - 1], order[i], part(bytes.parts, bytes.root)});
    }
    const double latency = mean_latency_s(hops);
    return {"ring", {{ranks() - 1, latency, std::move(hops)}}};
  }
  const Passing passing = passing_of(bytes.pattern);
  const auto rings = static_cast<std::int64_t>(rings_.size());
  std::vector<Hop> passed_on;  // of every ring
  for (std::int64_t ring = 0; ring < rings; ++ring) {
    const std::vector<int>& order = rings_[static_cast<std::size_t>(ring)];
    Parts parts;
    for (const int rank : order) {
      const std::int64_t all = part(bytes.parts, rank);
      parts.push_back(all * (ring + 1) / rings - all * ring / rings);
    }
    std::vector<Hop> hops;
    add_ring(hops, order, parts, passing);
    for (const Hop& hop : hops) loads[{hop.from, hop.to}] += hop.bytes;
    passed_on.insert(passed_on.end(), hops.begin(), hops.end());
  }
  Stage made{steps_of(passing, devices_.size()), mean_latency_s(passed_on), {}};
  for (const auto& [pair, load] : loads) made.hops.push_back({pair.first, pair.second, load});
  return {"ring", {std::move(made)}};
}

CollectivePlan CollectivePlanner::tree(const CollectiveBytes& bytes) const {
  const bool broadcast = bytes.pattern == Pattern::kBroadcast;
  const std::int64_t size = sum_of(bytes.parts);
  const std::vector<int> order = from_root(broadcast ? bytes.root : rings_.front().front());
  std::vector<Hop> hops;
  int depth = 0;
  for (std::size_t i = 1; i < order.size(); ++i) {
    const int parent = order[(i - 1) / 2], child = order[i];
    hops.push_back({parent, child, size});
    if (!broadcast) hops.push_back({child, parent, size});
    if (((i + 1) & i) == 0) ++depth;  // the first of its level
  }
  return {"tree", {stage(broadcast ? depth : 2 * depth, std::move(hops))}};
}

CollectivePlan CollectivePlanner::hierarchical(const CollectiveBytes& bytes) const {
  const std::size_t local = nodes_.front().size();
  // Rails: parts of the ranks; inside a node: what its rank has of its whole rail.
  std::vector<Hop> rails, inside;
  Parts of_rail(local);
  for (std::size_t i = 0; i < local; ++i) {
    std::vector<int> rail;
    Parts parts;
    for (const std::vector<int>& node : nodes_) {
      rail.push_back(node[i]);
      parts.push_back(part(bytes.parts, node[i]));
    }
    of_rail[i] = sum_of(parts);
    add_ring(rails, rail, parts, passing_of(bytes.pattern));
  }
  const auto within = [&](Passing passing) {
    std::vector<Hop> hops;
    for (const std::vector<int>& node : nodes_) add_ring(hops, node, of_rail, passing);
    return stage(steps_of(passing, local), std::move(hops));
  };
  Stage between = stage(steps_of(passing_of(bytes.pattern), nodes_.size()), std::move(rails));
  CollectivePlan plan{"hierarchical", {}};
  if (bytes.pattern != Pattern::kAllGather) plan.stages.push_back(within(Passing::kReduce));
  plan.stages.push_back(std::move(between));
  if (bytes.pattern != Pattern::kReduceScatter) plan.stages.push_back(within(Passing::kGather));
  return plan;
}

CollectivePlan CollectivePlanner::direct(const CollectiveBytes& bytes) const {
  const auto pairs = [&](auto&& bytes_of) {
    std::vector<Hop> hops;
    for (int from = 0; from < ranks(); ++from) {
      for (int to = 0; to < ranks(); ++to) {
        if (from != to) hops.push_back({from, to, bytes_of(from, to)});
      }
    }
    return stage(1, std::move(hops));
  };
  CollectivePlan plan{"direct", {}};
  if (bytes.pattern == Pattern::kAllToAll) {
    plan.stages.push_back(
        pairs([&](int from, int to) { return part(bytes.pairs, from * ranks() + to); }));
    return plan;
  }
  if (bytes.pattern != Pattern::kAllGather) {
    plan.stages.push_back(pairs([&](int, int to) { return part(bytes.parts, to); }));
  }
  if (bytes.pattern != Pattern::kReduceScatter) {
    plan.stages.push_back(pairs([&](int from, int) { return part(bytes.parts, from); }));
  }
  return plan;
}

std::vector<int> CollectivePlanner::from_root(int root) const {
  std::vector<int> order = rings_.front();
  std::rotate(order.begin(), std::find(order.begin(), order.end(), root), order.end());
  return order;
}

std::vector<CollectivePlan> CollectivePlanner::candidates(const CollectiveBytes& bytes) const {
  std::vector<CollectivePlan> plans;
  if (bytes.pattern == Pattern::kAllToAll) {
    plans.push_back(direct(bytes));
    return plans;
  }
  const bool broadcast = bytes.pattern == Pattern::kBroadcast;
  plans.push_back(ring(bytes));
  if (broadcast || bytes.pattern == Pattern::kAllReduce) plans.push_back(tree(bytes));
  if (even_ && !broadcast) plans.push_back(hierarchical(bytes));
  const bool mesh = platform_.node.wiring == Wiring::kMesh && nodes_.size() == 1;
  if (mesh && !broadcast) plans.push_back(direct(bytes));
  return plans;
}

CollectivePlan CollectivePlanner::plan(const CollectiveBytes& bytes) const {
  std::vector<CollectivePlan> plans = candidates(bytes);
  if (plans.size() == 1) return std::move(plans.front());
  return std::move(*std::ranges::min_element(
      plans, {}, [&](const CollectivePlan& each) { return estimate(each); }));
}

double CollectivePlanner::latency_s(const Stage& stage) const {
  return stage.steps * stage.latency_s + (stage.steps - 1) * platform_.comm.step_s;
}

double CollectivePlanner::estimate(const CollectivePlan& plan) const {
  double seconds = 0;
  for (const Stage& stage : plan.stages) {
    std::vector<double> load(wires_.links.size()), out(devices_.size()), in(devices_.size());
    double busiest = 0;
    for (const Hop& hop : stage.hops) {
      const auto from = static_cast<std::size_t>(hop.from), to = static_cast<std::size_t>(hop.to);
      const auto bytes = static_cast<double>(hop.bytes);
      for (const int link : wires_.route(devices_[from], devices_[to])) {
        double& of_link = load[static_cast<std::size_t>(link)];
        of_link += bytes;
        busiest =
            std::max(busiest, of_link / wires_.links[static_cast<std::size_t>(link)].bandwidth);
      }
      out[from] += bytes;
      in[to] += bytes;
      if (platform_.comm.channel_bandwidth > 0) {
        busiest = std::max(busiest, std::max(out[from], in[to]) / platform_.comm.channel_bandwidth);
      }
    }
    seconds += latency_s(stage) + busiest;
  }
  return seconds;
}

}  // namespace sp
