// The contract of an algorithm: plain functions of one rank, run by all ranks of a communicator
// together.
//
// The text of forward and backward is the same on every back-end: it never looks at data, never
// asks where it runs, and moves bytes through the context's communicator only. How to add one:
// optimized/README.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "optimized/context.hpp"
#include "optimized/sharding/layout.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

struct World {
  int size = 1;
  int node_size = 1;  // consecutive ranks per node; divides size
  int splits = 1;     // pieces that a state travels in, for algorithms that cut it
};

// One rank's part of a problem. Tensors are token-major: [n, B, H, D] with n = layout.count(rank).
struct Shards {
  const Problem& problem;
  Layout layout;
  MaskTerms mask;
  Tensor q, k, v;
  Tensor projection_k{}, projection_v{};  // [n, 1, 1, K'], kProjectedSoftmax only
  Tensor log_decay{};                     // [n, B, H, D] per channel, or [1, 1, H, 1] on every rank
  Tensor gamma{}, beta{};                 // [1, 1, 1, D] on every rank
};

// What forward returns, and what backward gets back.
struct Forward {
  Tensor out;  // [n, B, H, E], storage type
  // [n, B, H, 1], accumulator type. An algorithm that shards heads over U consecutive ranks leaves
  // it where it was computed, [m, B, H/U, 1]: the tokens of these ranks, rank after rank, and on
  // the i-th of them the heads [i H/U, (i + 1) H/U). Undefined for linear attention and stacks.
  Tensor lse;
  std::vector<Tensor> saved;  // private to the algorithm
};

// In the storage type, placed like q, k, v and the projections; those of decays, gamma and beta in
// the accumulator type. Of what every rank holds ([1, 1, ., .]) each rank returns its own share: the
// gradient is the sum over ranks, taken together with that of the weights.
struct Gradients {
  Tensor d_q, d_k, d_v;
  Tensor d_projection_k{}, d_projection_v{};
  Tensor d_log_decay{}, d_gamma{}, d_beta{};
};

// What one rank sends and computes in one pass, by formula; tests assert that a run does exactly
// this. Memory has no formula: harness/run/dry_run.hpp runs the text without data.
struct PassCost {
  std::int64_t bytes_sent = 0;
  std::int64_t messages_sent = 0;
  std::int64_t flops = 0;

  PassCost& operator+=(const PassCost& more) {
    bytes_sent += more.bytes_sent;
    messages_sent += more.messages_sent;
    flops += more.flops;
    return *this;
  }
  bool operator==(const PassCost&) const = default;
};
struct Cost {
  PassCost forward, backward;
};

struct Unsupported {
  std::string reason;  // one sentence
};
using Support = tl::expected<void, Unsupported>;
// Every problem of softmax attention: none that is projected.
Support softmax_only(const Problem& problem, const World& world);

struct Algorithm {
  const char* id;  // "name" or "name/sharding": the same string everywhere
  const char* title;
  const char* paper;    // citation with arXiv number, or "this project"
  const char* pattern;  // one phrase: what travels
  Family family = Family::kSoftmax;
  Sharding sharding;
  // How often a value passes through the storage type on its way into out: 1 for the final cast
  // alone, 2 when partial results travel in the storage type. Sets the comparison limit.
  int roundings = 1;

  Support (*supports)(const Problem&, const World&) = softmax_only;
  Cost (*cost)(const Problem&, const Layout&, const World&, int rank);
  Forward (*forward)(Context&, const Shards&);
  Gradients (*backward)(Context&, const Shards&, const Forward&, const Tensor& d_out);
};

}  // namespace sp
