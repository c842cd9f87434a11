// A whole linear attention layer of the size that LASP-2 is about, computed for real: 2,097,152
// tokens on 64 thread ranks, head by head, forward and backward, every head verified by row
// sampling against the double reference.
//
// Paper      Sun et al., 2025, arXiv:2502.07563, figure 3: Linear-Llama3-1B (16 heads of 128,
//            batch 1) at 2048K tokens on 64 GPUs. Here the attention layer alone, on a CPU.
// Values     bf16, uniform with variance 1, from a counter: token and channel decide them.
// Time       of a pass: from all ranks' meeting to the last rank's end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/run/backend.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

struct RealLayer {
  std::int64_t tokens = std::int64_t{1} << 21;
  std::int64_t heads = 16;
  std::int64_t head_size = 128;
  int ranks = 64;
  std::uint64_t seed = 1;
  std::vector<const Algorithm*> algorithms;  // on the same inputs, one after the other
};

// One algorithm; a value per head where a vector.
struct RealLayerRow {
  const Algorithm* algorithm = nullptr;
  std::vector<double> forward_s, backward_s;
  std::vector<double> worst_ratio;  // error / limit; above 1, or NaN, is wrong
  std::string worst;                // the worst element of all heads, one line
  std::int64_t peak_bytes = 0;      // of one rank beyond its shards, the largest of both passes
  std::int64_t bytes_sent = 0;      // of one rank and head, both passes, the largest
  bool passed = true;
  double total_s() const;
};

struct RealLayerResult {
  std::vector<RealLayerRow> rows;
  std::int64_t process_bytes = 0;  // most memory that the process ever held
  std::int64_t checked_tokens = 0;
  int cores = 0;
};

// progress(done, total) after every head and algorithm. Runs in one process only.
RealLayerResult run_real_layer(const RealLayer& layer,
                               const std::function<void(std::int64_t, std::int64_t)>& progress);

}  // namespace sp
