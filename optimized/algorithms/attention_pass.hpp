// One pass of softmax attention on one rank, forward or backward: a text that moves blocks of keys or
// of queries says so once, for both.
//
// What differs between the two is here: what queries and keys carry, what a block of attention
// computes, and how the results for the own queries are summed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/travel.hpp"

namespace sp {

// Rows of queries [n, B, H, .]; backward needs to know of them what forward found over ALL keys.
struct Queries {
  Tokens tokens;
  Tensor q;
  Tensor d_out{}, lse{}, delta{};  // backward
  Queries rows(Rows some) const;
  static constexpr auto fields() {
    return std::array{Field<Queries>{"q", &Queries::q}, Field<Queries>{"d_out", &Queries::d_out},
                      Field<Queries>{"lse", &Queries::lse},
                      Field<Queries>{"delta", &Queries::delta}};
  }
};

// Rows of keys and values [m, B, G, .], and in backward what their gradients are added to.
struct Keys {
  Tokens tokens;
  Tensor k, v;
  Tensor d_k{}, d_v{};  // backward, accumulator type
  static constexpr auto fields() {
    return std::array{Field<Keys>{"k", &Keys::k}, Field<Keys>{"v", &Keys::v},
                      Field<Keys>{"d_k", &Keys::d_k}, Field<Keys>{"d_v", &Keys::d_v}};
  }
};

// What queries get from a block of keys: a partial result, or a share of their gradient. Of other
// ranks' queries, to be returned to them; partial results then have the storage type.
struct Results {
  Tensor out{}, lse{};  // forward
  Tensor d_q{};         // backward, accumulator type
  static constexpr auto fields() {
    return std::array{Field<Results>{"out", &Results::out}, Field<Results>{"lse", &Results::lse},
                      Field<Results>{"d_q", &Results::d_q}};
  }
};

// What a pass begins with: this rank's queries.
Queries queries_of(Context& ctx, const Shards& in);
Queries queries_of(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out);

class AttentionPass {
 public:
  AttentionPass(Context& ctx, const Shards& in) : AttentionPass(ctx, in, queries_of(ctx, in)) {}
  AttentionPass(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out)
      : AttentionPass(ctx, in, queries_of(ctx, in, saved, d_out)) {}
  // Of other queries than this rank's: "own" means these.
  AttentionPass(Context& ctx, const Shards& in, Queries own);

  bool backward() const { return own_.d_out.defined(); }
  const Queries& queries() const { return own_; }
  Keys keys() const;  // this rank's, where they stay: backward allocates zeros for their gradients
  Results allocate_results(std::int64_t rows) const;  // for other ranks' queries

  // Whether any of the queries sees any of the keys, by positions alone.
  bool sees(const Queries& queries, const Keys& keys) const;
  // Of other ranks' queries: forward overwrites the results, backward adds to d_q, d_k and d_v.
  void attend(const Queries& queries, const Keys& keys, const Results& results) const;
  // The same with results that begin here.
  void serve(const Queries& queries, const Keys& keys, const Results& results) const;

  // The own queries over a block of keys. Sums begin with nothing, by `open`, or with the first block,
  // which `begin` writes over them; other blocks are added, and skipped where nothing is seen.
  void open();
  void begin(const Keys& keys);
  void attend(const Keys& keys);
  // Adds what another rank computed for the own queries.
  void merge(Rows rows, const Results& results);

  // The sums as they travel to the owners of the queries.
  Results results();
  Forward finish();
  Gradients finish(const Tensor& d_k, const Tensor& d_v) const;
  // home() waits for the last sums of dK and dV and returns them: dQ is rounded meanwhile.
  template <class Home>
  Gradients finish(Home&& home) const {
    const DType dtype = in_.problem.dtype;
    Gradients gradients{to_storage(ctx_, sums_.d_q, dtype, "d_q"), {}, {}};
    const auto [d_k, d_v] = home();
    gradients.d_k = to_storage(ctx_, d_k, dtype, "d_k");
    gradients.d_v = to_storage(ctx_, d_v, dtype, "d_v");
    return gradients;
  }

 private:
  Context& ctx_;
  const Shards& in_;
  Queries own_;
  Results sums_;  // of the own queries, in the accumulator type
  Partial part_;  // forward: a block's result on its way into the sums
  bool begun_ = false;
};

// What the blocks of a pass weigh, for cost().
struct Cargo {
  Freight queries, results, keys, key_gradients;
};
Cargo cargo_of(const Problem& problem, bool backward);

}  // namespace sp
