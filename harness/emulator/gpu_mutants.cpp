// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/gpu_mutants.hpp"

namespace sp::emulator {
namespace {

// More than one tile of 64 tokens per rank, so that pipelines run.
Pins tensor_cores() {
  Pins pins;
  pins.ranks = {1, 2};
  pins.batch = 1;
  pins.tokens = 200;
  pins.heads = 2;
  pins.kv_heads = 1;
  pins.head_size = 16;
  pins.dtype = DType::kBF16;
  pins.values = Values::kNormal;
  return pins;
}

Pins plain() {
  Pins pins = tensor_cores();
  pins.dtype = DType::kF32;
  return pins;
}

Pins several_ranks() {
  Pins pins;
  pins.ranks = {3, 4};
  pins.head_size = 8;
  return pins;
}

struct Row {
  const char* id;
  const char* what;
  const char* sabotage;
  const char* kernel;
  std::vector<const char*> algorithms;
  Pins pins;
};

std::vector<Row> rows() {
  return {
      {"missing-barrier-forward",
       "attention forward without block barriers",
       "barrier_ignored",
       "attention_forward",
       {"ring/zigzag"},
       tensor_cores()},
      {"missing-barrier-backward",
       "attention backward without block barriers",
       "barrier_ignored",
       "attention_backward",
       {"ring/zigzag"},
       tensor_cores()},
      {"missing-barrier-plain",
       "f32 attention without block barriers",
       "barrier_ignored",
       "attention_plain",
       {"ring/zigzag"},
       plain()},
      {"missing-barrier-linear",
       "linear attention without block barriers",
       "barrier_ignored",
       "linear",
       {"lasp2"},
       plain()},
      {"missing-barrier-scores",
       "score rows without block barriers",
       "barrier_ignored",
       "scores",
       {"rsa"},
       plain()},
      {"missing-copy-wait",
       "tiles are read before their asynchronous copies landed",
       "async_wait_ignored",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"missing-copy-commit",
       "copies are never committed to a group",
       "async_commit_ignored",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"no-zero-fill",
       "rows beyond the last token keep what was there",
       "async_zero_fill_ignored",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"swizzle-mismatch",
       "matrices are read from rows that lie elsewhere",
       "load_matrix_row_off",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"values-not-transposed",
       "ldmatrix without .trans",
       "load_matrix_not_transposed",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"fragment-a-swapped",
       "rows and columns of A fragments exchanged",
       "mma_a_swapped",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"fragment-b-swapped",
       "halves of B fragments exchanged",
       "mma_b_swapped",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"accumulator-lost",
       "mma forgets what it was given to add to",
       "mma_c_not_accumulated",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"shuffle-neighbour",
       "a shuffle reads one lane further",
       "shuffle_neighbour",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"truncated-rounding",
       "conversions to 16 bits truncate",
       "round_toward_zero",
       "",
       {"ulysses"},
       tensor_cores()},
      {"exp2-range",
       "exp2 that loses the integer part of its argument",
       "exp2_without_integer_part",
       "attention",
       {"ring/zigzag"},
       tensor_cores()},
      {"last-block-missing",
       "grids that are one block short",
       "last_block_missing",
       "",
       {"ring/zigzag", "lasp2", "rsa"},
       several_ranks()},
      {"event-on-wrong-stream",
       "messages leave before they are computed",
       "event_on_wrong_stream",
       "",
       {"ring/zigzag", "lasp2"},
       several_ranks()},
      {"stream-wait-ignored",
       "kernels do not wait for what arrives",
       "stream_wait_ignored",
       "",
       {"ring/zigzag", "token_ring/zigzag", "lasp2"},
       several_ranks()},
      {"freed-too-early",
       "memory is freed before its last kernel",
       "free_early",
       "",
       {"ring/zigzag"},
       several_ranks()},
      {"nccl-wrong-peer",
       "sends go to the next peer but one",
       "nccl_peer_off_by_one",
       "",
       {"ring/zigzag"},
       several_ranks()},
      {"nccl-swapped-pair",
       "two messages between the same ranks exchanged",
       "nccl_swapped_pair",
       "",
       {"ring/zigzag"},
       several_ranks()},
      {"nccl-stale-send",
       "a message holds what its buffer held a step before",
       "nccl_stale_send",
       "",
       {"ring/zigzag"},
       several_ranks()},
      {"nccl-sum-short",
       "reductions leave the last rank out",
       "nccl_sum_drops_last_rank",
       "",
       {"rsa"},
       several_ranks()},
  };
}

}  // namespace

std::vector<GpuMutant> gpu_mutants() {
  std::vector<GpuMutant> mutants;
  for (const Row& row : rows()) {
    mutants.push_back({{row.id, row.what, "classic", row.algorithms, {}, {}, row.pins},
                       {row.sabotage, row.kernel}});
  }
  return mutants;
}

}  // namespace sp::emulator
