// SPDX-License-Identifier: Apache-2.0
#include "harness/mutants/museum.hpp"

namespace sp {

std::span<const Exhibit> museum() {
  static constexpr Exhibit kExhibits[] = {
      {"log-sum-exp of each block in backward",
       "Megatron-LM #1464, TransformerEngine #1557, tt-metal #53205", "backward_block_lse",
       "ring/zigzag"},
      {"delta of each block in backward", "Megatron-LM #1464, TransformerEngine #1557",
       "backward_block_out", "ring/zigzag"},
      {"padding counted per hop as len // P", "TransformerEngine #3331", "keys_of_shortest_shard",
       "ring/contiguous"},
      {"odd length: 7 tokens computed as 6", "TransformerEngine #1930", "odd_key_dropped",
       "ring/contiguous"},
      {"dK, dV of a chunk that is all padding", "TransformerEngine #2186", "gradients_not_cleared",
       "ring/zigzag"},
      {"backward re-uses the first hop's K, V", "diffusers #14265", "backward_stale_keys",
       "ring/zigzag"},
      {"K, V transposed twice in backward", "Automodel PR 3157", "keys_transposed_backward",
       "ring/zigzag"},
      {"padding inside a document", "Automodel #3640", "padding_in_document", "ring/zigzag"},
      {"log-sum-exp in base 2 merged as natural", "sglang #40903, vllm #52796", "lse_in_base_2",
       "ring/zigzag"},
      {"finite sentinel for minus infinity", "flashinfer #4267", "finite_sentinel", "ring/zigzag"},
      {"partial results rounded per hop", "ring-flash-attention #22, #42", "carry_in_storage",
       "ring/zigzag", true},
      {"block outputs rounded before the merge", "flash-attention #1088", "partial_in_storage",
       "ring/zigzag", true},
      {"decay per head without its head offset, backward", "fla #1115", "decays_of_other_heads",
       "lasp2"},
      {"decay as exp(-cumulative sum)", "executorch #21417, fla #77", "decay_overflows", "lasp2"},
      {"state restarts at each rank", "SkyRL #2056", "state_restarts", "lasp2"},
      {"state leaks over documents", "accelerate #4177", "documents_ignored_in_prefix", "lasp2"},
      {"documents ignored across ranks", "axolotl #3608", "segments_ignored_across_ranks",
       "ring/zigzag"},
      {"window replaced by full causal", "accelerate #4177, axlearn #1009", "window_ignored",
       "ring/zigzag"},
      {"window off by one", "mlx #3552", "window_one_wider", "ring/striped"},
      {"Ulysses with batch > 1", "DeepSpeed #5808, #7384, #7842, #8317",
       "batch_and_heads_exchanged", "ulysses"},
      {"shards reassembled in another order", "slime #1871, ms-swift #10071", "pieces_rotated",
       "allgather"},
      {"gradients divided by the ranks", "ColossalAI, since 2021", "rsa_gradient_divided", "rsa"},
      {"gradients rounded to storage per hop", "ring-flash-attention #67",
       "gradient_carry_in_storage", "ring/zigzag", true},
  };
  return kExhibits;
}

}  // namespace sp
