// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/kernel_time.hpp"

#include <algorithm>
#include <string_view>

namespace sp {
namespace {

// Which products an attention kernel makes, told by its name; none for other kernels.
enum class Pass : std::uint8_t { kNone, kForward, kBackward };

Pass pass_of(std::string_view kernel) {
  if (kernel == "attention" || kernel == "linear_block") return Pass::kForward;
  if (kernel == "attention_backward" || kernel == "linear_block_backward") return Pass::kBackward;
  return Pass::kNone;
}

// Products run at the peak of the narrowest operand: what is wider is rounded on the way in.
DType operand_type(std::span<const Tensor> reads) {
  DType narrowest = reads.front().dtype();
  for (const Tensor& tensor : reads) {
    if (size_of(tensor.dtype()) < size_of(narrowest)) narrowest = tensor.dtype();
  }
  return narrowest;
}

// Seconds at peak speed that the block's products take, over the share of it that they reach.
double attention_seconds(const Device& device, Pass pass, std::int64_t flops,
                         std::span<const Tensor> reads) {
  const KernelModel& model = device.kernels;
  const Tensor& q = reads[0];
  const std::int64_t n = q.extent(0), m = reads[1].extent(0);
  const std::int64_t heads = q.extent(1) * q.extent(2);
  const std::int64_t D = q.extent(3), E = reads[2].extent(3);
  const bool forward = pass == Pass::kForward;
  const std::int64_t flops_per_pair = heads * (forward ? 2 * D + 2 * E : 6 * D + 4 * E);
  const std::int64_t pairs = flops / flops_per_pair;

  double share = forward ? model.attention_forward : model.attention_backward;
  const double rows = static_cast<double>(n * heads);
  double computed = static_cast<double>(pairs);
  // Where the mask hides whole rows or columns, as between the halves of zigzag shards, a smaller
  // rectangle is left. A diagonal leaves n (n +- 1) / 2 pairs, which an even n does not divide.
  const bool cut = pairs % n != 0 && pairs % m != 0;
  // The rows that run last, half a wave on average, are the longest: those of a diagonal see m keys.
  double last_rows = model.half_rows;
  if (cut) {
    share *= model.diagonal;
    last_rows *= static_cast<double>(n) * static_cast<double>(m) / static_cast<double>(pairs);
    // Every row's last tile is half hidden, on average.
    computed += static_cast<double>(n * std::max(model.query_tile, model.key_tile)) / 2;
    computed = std::min(computed, static_cast<double>(n) * static_cast<double>(m));
  }
  share *= rows / (rows + last_rows);
  return computed * static_cast<double>(flops_per_pair) /
         (device.peak(operand_type(reads)) * share);
}

}  // namespace

double kernel_seconds(const Device& device, const Charge& charge, std::span<const Tensor> reads,
                      std::span<const Tensor> writes) {
  if (charge.flops == 0 && charge.bytes == 0) return 0;
  const KernelModel& model = device.kernels;
  double compute = 0;
  if (charge.flops > 0) {
    const Pass pass = pass_of(charge.kernel);
    compute = pass == Pass::kNone ? static_cast<double>(charge.flops) /
                                        (device.peak(operand_type(reads)) * model.matrix)
                                  : attention_seconds(device, pass, charge.flops, reads);
  }
  double bytes = static_cast<double>(charge.bytes);
  double apart = 0;  // moved by kernels of its own
  if (std::string_view(charge.kernel) == "merge") bytes *= model.merge_traffic;
  if (std::string_view(charge.kernel) == "attention_backward") {
    for (const Tensor& sum : writes)
      apart += (model.merge_traffic - 1) * 2 * static_cast<double>(sum.bytes());
  }
  const double bandwidth = device.memory_bandwidth * model.memory;
  return model.launch_s + std::max(compute, bytes / bandwidth) + apart / bandwidth;
}

}  // namespace sp
