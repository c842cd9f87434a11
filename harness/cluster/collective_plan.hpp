// How a collective is made of point-to-point flows, in the manner of NCCL.
//
// ring          Every rank passes parts on to its neighbour. The steps of a ring are pipelined: their
//               bytes are one flow per pair of neighbours, their latencies come first. Over several
//               nodes with equally many ranks there is one ring per rank of a node, each of which
//               leaves every node through another device, and the bytes are dealt to them evenly.
// tree          A binary tree of ranks, up for sums and down for results: few steps, more bytes.
// hierarchical  Rings inside the nodes, and rails between them: rank i of every node talks to rank i
//               of the other nodes.
// direct        Every pair at once: all-to-all, and the others but broadcast where every pair of
//               devices has a wire of its own.
//
// Of those that a collective can take, the one with the least estimate is taken: over its stages,
// the latencies of the steps plus the time of the busiest link if the flows ran alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "harness/cluster/platform.hpp"
#include "optimized/comm/communicator.hpp"

namespace sp {

struct Hop {
  int from = 0, to = 0;  // ranks of the communicator
  std::int64_t bytes = 0;
};

// Steps one after the other, pipelined: all latency, then all bytes at once.
struct Stage {
  int steps = 0;
  double latency_s = 0;  // of a step
  std::vector<Hop> hops;
};

struct CollectivePlan {
  const char* name = "";
  std::vector<Stage> stages;
};

// Bytes of a collective. parts[i]: what rank i contributes (all-gather), what it is left with
// (reduce-scatter), its nearly equal share of the sum (all-reduce), or what the root has in part
// `root` alone (broadcast).
struct CollectiveBytes {
  Pattern pattern = Pattern::kAllGather;
  std::vector<std::int64_t> parts;
  int root = 0;
  std::vector<std::int64_t> pairs;  // all-to-all: [from * ranks + to]
};

class CollectivePlanner {
 public:
  // devices: of the ranks of the communicator. The platform and the wires must outlive this.
  CollectivePlanner(const Platform& platform, const WireMap& wires, std::vector<int> devices);

  CollectivePlan plan(const CollectiveBytes& bytes) const;
  double estimate(const CollectivePlan& plan) const;
  // Latency of a stage with all its steps.
  double latency_s(const Stage& stage) const;

 private:
  std::vector<CollectivePlan> candidates(const CollectiveBytes& bytes) const;
  CollectivePlan ring(const CollectiveBytes& bytes) const;
  CollectivePlan tree(const CollectiveBytes& bytes) const;
  CollectivePlan hierarchical(const CollectiveBytes& bytes) const;
  CollectivePlan direct(const CollectiveBytes& bytes) const;
  // A step lasts as long as its slowest hop.
  Stage stage(int steps, std::vector<Hop> hops) const;
  double latency_s(const Hop& hop) const;
  // Of a step of a ring: a part takes one hop after the other, and nobody waits for all.
  double mean_latency_s(const std::vector<Hop>& hops) const;
  std::vector<int> from_root(int root) const;
  int ranks() const { return static_cast<int>(devices_.size()); }

  const Platform& platform_;
  const WireMap& wires_;
  std::vector<int> devices_;
  std::vector<std::vector<int>> nodes_;  // ranks by node, in rank order
  std::vector<std::vector<int>> rings_;  // orders of all ranks
  bool even_ = false;                    // several nodes, each with the same number > 1 of ranks
};

}  // namespace sp
