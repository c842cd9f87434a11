// The small steps that every softmax algorithm takes with its local tensors: allocate, finish,
// cast.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"
#include "optimized/comm/mesh.hpp"

namespace sp {

inline Band band_of(const Problem& problem) { return {problem.mask.causal, problem.mask.window}; }

// Bytes of one token: q or out over all query heads, k or v over all key heads, log-sum-exp.
struct TokenBytes {
  explicit TokenBytes(const Problem& problem);
  std::int64_t q, out, k, v;                       // storage type
  std::int64_t acc_q, acc_out, acc_k, acc_v, lse;  // accumulator type
  std::int64_t kv() const { return k + v; }
  std::int64_t acc_kv() const { return acc_k + acc_v; }
};

Tensor allocate_like(Context& ctx, const Tensor& like, DType dtype, std::int64_t rows,
                     const char* name);
Tensor zeros(Context& ctx, DType dtype, Tensor::Extents shape, const char* name);

// A partial result for `rows` queries of `in`; contents unspecified, or the identity of merge.
Partial allocate_partial(Context& ctx, const Shards& in, std::int64_t rows, DType out_type);
Partial empty_partial(Context& ctx, const Shards& in);

// The tensor in the storage type; the tensor itself where accumulator and storage are one.
Tensor to_storage(Context& ctx, const Tensor& accumulated, DType dtype, const char* name);

Forward finish(Context& ctx, const Shards& in, const Partial& accumulated);

// What backward returns of sums of gradients in the accumulator type.
Gradients finish(Context& ctx, const Shards& in, const AttentionGradients& accumulated);

// Sum of d_out * out per row.
Tensor delta_of(Context& ctx, const Tensor& d_out, const Tensor& out);

// M nodes of U ranks: axes "node" and "local".
Mesh node_mesh(const Context& ctx);
Mesh node_mesh(const World& world, int rank);

// Consecutive rows, one part for each count; those of all ranks' tokens, in rank order.
std::vector<Tensor> parts_of(const Tensor& all, const std::vector<std::int64_t>& rows);
std::vector<Tensor> parts_of(const Tensor& all, const Layout& layout);
std::int64_t largest_shard(const Layout& layout);
// Pairs that the queries of `rank` see in the whole sequence: the work of an algorithm that keeps
// its queries.
std::int64_t pairs_of_queries(const Problem& problem, const Layout& layout, int rank);
// Pairs that the keys of `rank` are seen by: the work of an algorithm that keeps its keys.
std::int64_t pairs_of_keys(const Problem& problem, const Layout& layout, int rank);
std::int64_t forward_flops(const Problem& problem, std::int64_t pairs);
std::int64_t backward_flops(const Problem& problem, std::int64_t pairs);

}  // namespace sp
