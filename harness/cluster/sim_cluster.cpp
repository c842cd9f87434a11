// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/sim_cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "harness/cluster/kernel_time.hpp"
#include "harness/run/phantom.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

std::vector<int> place(const Platform& platform, int ranks, std::vector<int> placement) {
  const int devices = platform.devices();
  if (ranks < 1 || ranks > devices) {
    throw Error(ErrorKind::kUsage, fmt::format("ranks = {} is impossible; platform {} allows 1..{}",
                                               ranks, platform.name, devices));
  }
  if (placement.empty()) {
    placement.resize(static_cast<std::size_t>(ranks));
    std::iota(placement.begin(), placement.end(), 0);
  }
  const std::set<int> distinct(placement.begin(), placement.end());
  if (static_cast<int>(placement.size()) != ranks || distinct.size() != placement.size() ||
      *distinct.begin() < 0 || *distinct.rbegin() >= devices) {
    throw Error(ErrorKind::kUsage,
                fmt::format("impossible placement; allowed: {} different devices out of 0..{}",
                            ranks, devices - 1));
  }
  return placement;
}

}  // namespace

SimCluster::SimCluster(const Platform& platform, int ranks, std::vector<int> placement,
                       Timeline* timeline)
    : platform_(platform),
      devices_(place(platform, ranks, std::move(placement))),
      wires_(wire(platform, *std::ranges::max_element(devices_) + 1)),
      engine_(platform, wires_, devices_),
      ranks_(devices_.size()),
      timeline_(timeline),
      meeting_(devices_.size()) {}

void SimCluster::run(const std::function<void(int)>& body) {
  for (int each = 0; each < size(); ++each) {
    engine_.start_rank(
        each,
        [this, each, &body] {
          body(each);
          rank(each).finished = true;
        },
        [this, each] { fail(each); });
  }
  engine_.run([this] { stuck_ = describe_all_ranks(); });
  if (!stuck_.empty() && failure_ == nullptr) throw Error(ErrorKind::kEnvironment, stuck_);
  if (failure_ == nullptr) return;
  try {
    std::rethrow_exception(failure_);
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("rank {}: {}", failed_rank_, error.what()));
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kInternal, fmt::format("rank {}: {}", failed_rank_, error.what()));
  }
}

void SimCluster::fail(int rank) {
  if (failure_ != nullptr) return;
  failure_ = std::current_exception();
  failed_rank_ = rank;
  engine_.abandon();
}

void SimCluster::meet(int rank) {
  if (++met_ == size()) {
    met_ = 0;
    for (Gate& gate : meeting_) gate.open();
  }
  meeting_[static_cast<std::size_t>(rank)].pass();
}

void SimCluster::trace(Span span) {
  if (timeline_ != nullptr && span.end_s > span.start_s) timeline_->add(std::move(span));
}

std::string SimCluster::describe_all_ranks() const {
  std::string text = "every rank that has not finished waits for another, for ever:";
  for (std::size_t each = 0; each < ranks_.size(); ++each) {
    const SimRank& rank = ranks_[each];
    if (rank.finished) {
      text += fmt::format("\n  rank {} has finished", each);
    } else {
      text += fmt::format("\n  rank {} waits {}", each,
                          rank.waits ? rank.waits() : "for all ranks to come this far");
    }
  }
  return text;
}

void SimClock::before(const Charge& charge, std::span<const Tensor> reads,
                      std::span<const Tensor> writes) {
  const double begin = cluster_.engine().now();
  const double seconds = kernel_seconds(cluster_.platform().device, charge, reads, writes);
  cluster_.engine().compute(rank_, seconds);
  const double end = cluster_.engine().now();
  cluster_.rank(rank_).compute_s += end - begin;
  if (!cluster_.traced()) return;
  cluster_.trace({rank_, TraceLane::kCompute, charge.kernel, begin, end, 0, charge.flops});
}

}  // namespace sp
