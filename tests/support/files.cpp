// SPDX-License-Identifier: Apache-2.0
#include "tests/support/files.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "reference/problem/error.hpp"

namespace sp::test {
namespace fs = std::filesystem;

TemporaryDirectory::TemporaryDirectory() {
  const fs::path memory = "/dev/shm";
  const fs::path base = ::access(memory.c_str(), W_OK) == 0 ? memory : fs::temp_directory_path();
  std::string name = (base / "seqpar-test-XXXXXX").string();
  SP_CHECK(::mkdtemp(name.data()) != nullptr, "cannot create a temporary directory");
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::size_t TemporaryDirectory::count() const {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), {}));
}

std::vector<std::byte> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  SP_CHECK(file.good(), "cannot open " + path);
  std::vector<std::byte> bytes(fs::file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void write_bytes(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  SP_CHECK(file.good(), "cannot write " + path);
}

HostTensor numbered(DType dtype, std::vector<std::int64_t> shape, double step) {
  HostTensor tensor(dtype, std::move(shape));
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    tensor.set(i, step * static_cast<double>(i % 61 - 30));
  }
  return tensor;
}

bool same_tensor(const HostTensor& a, const HostTensor& b) {
  const auto bytes = [](const HostTensor& tensor) {
    return std::span(tensor.data(),
                     static_cast<std::size_t>(tensor.size()) * size_of(tensor.dtype()));
  };
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::ranges::equal(bytes(a), bytes(b));
}

ProblemFile masked_problem(DType dtype) {
  ProblemFile file;
  Problem& problem = file.problem;
  problem.shape = {.B = 2, .N = 7, .H = 4, .G = 2, .D = 3, .E = 5};
  problem.dtype = dtype;
  problem.scale = 0.375;
  problem.mask = {.causal = true,
                  .window = 3,
                  .segment_ids = {0, 0, 0, 1, 1, 1, 1, -4, -4, 9, 9, 9, 9, 2147483647}};
  file.inputs.q = numbered(dtype, {2, 7, 4, 3}, 0.25);
  file.inputs.k = numbered(dtype, {2, 7, 2, 3}, -0.5);
  file.inputs.v = numbered(dtype, {2, 7, 2, 5}, 1);
  file.inputs.d_out = numbered(dtype, {2, 7, 4, 5}, 2);
  return file;
}

ProblemFile projected_problem(DType dtype) {
  ProblemFile file;
  file.problem.shape = {.B = 1, .N = 6, .H = 2, .G = 2, .D = 4, .E = 4};
  file.problem.dtype = dtype;
  file.problem.scale = default_scale(file.problem.shape);
  file.problem.projected = 3;
  file.inputs.q = numbered(dtype, {1, 6, 2, 4}, 0.25);
  file.inputs.k = numbered(dtype, {1, 6, 2, 4}, 0.5);
  file.inputs.v = numbered(dtype, {1, 6, 2, 4}, 1);
  file.inputs.projection_k = numbered(dtype, {6, 3}, 0.125);
  file.inputs.projection_v = numbered(dtype, {6, 3}, -0.125);
  return file;
}

namespace {

// Natural logarithms of decays: 0 or less, exact in bf16.
HostTensor decays(DType dtype, std::vector<std::int64_t> shape) {
  HostTensor tensor(dtype, std::move(shape));
  for (std::int64_t i = 0; i < tensor.size(); ++i)
    tensor.set(i, -0.125 * static_cast<double>(i % 9));
  return tensor;
}

}  // namespace

ProblemFile linear_problem(Module module, DType dtype) {
  ProblemFile file = masked_problem(dtype);
  Problem& problem = file.problem;
  problem.module = module;
  problem.scale = is_normalised(module) ? 1 : 0.375;
  problem.epsilon = is_normalised(module) ? 0.25 : 0;
  problem.mask.window = module == Module::kBased ? 3 : 0;
  const auto [B, N, H, G, D, E] = problem.shape;
  const DType accumulator = accumulator_of(dtype);
  if (decay_of(module) == Decay::kPerHead) file.inputs.log_decay = decays(accumulator, {H});
  if (decay_of(module) == Decay::kPerChannel)
    file.inputs.log_decay = decays(accumulator, {B, N, H, D});
  if (module == Module::kRebased) {
    file.inputs.gamma = numbered(accumulator, {D}, 0.5);
    file.inputs.beta = numbered(accumulator, {D}, 0.25);
  }
  return file;
}

ProblemFile hybrid_problem(DType dtype) {
  ProblemFile file = linear_problem(Module::kRetention, dtype);
  file.problem.layers = "LNLL";
  file.problem.shape.E = file.problem.shape.D;
  const auto [B, N, H, G, D, E] = file.problem.shape;
  file.inputs.k = numbered(dtype, {B, N, 4 * G, D}, -0.5);
  file.inputs.v = numbered(dtype, {B, N, 4 * G, E}, 1);
  file.inputs.d_out = numbered(dtype, {B, N, H, E}, 2);
  return file;
}

Outputs sample_outputs(const Problem& problem) {
  const Shape& s = problem.shape;
  const std::int64_t key_heads = s.G * problem.layer_count();
  Outputs outputs;
  outputs.out = numbered(problem.dtype, {s.B, s.N, s.H, s.E}, 0.5);
  const DType accumulator = accumulator_of(problem.dtype);
  if (!problem.module) {
    outputs.lse = numbered(accumulator, {s.B, s.H, s.N}, 0.75);
    if (s.N > 0) outputs.lse.set(0, -INFINITY);
  }
  outputs.d_q = numbered(problem.dtype, {s.B, s.N, s.H, s.D}, 1);
  outputs.d_k = numbered(problem.dtype, {s.B, s.N, key_heads, s.D}, 2);
  outputs.d_v = numbered(problem.dtype, {s.B, s.N, key_heads, s.E}, 4);
  if (problem.projected > 0) {
    outputs.d_projection_k = numbered(problem.dtype, {s.N, problem.projected}, 1);
    outputs.d_projection_v = numbered(problem.dtype, {s.N, problem.projected}, 2);
  }
  if (!problem.module) return outputs;
  const Decay decay = decay_of(*problem.module);
  if (decay == Decay::kPerHead) outputs.d_log_decay = numbered(accumulator, {s.H}, 1);
  if (decay == Decay::kPerChannel)
    outputs.d_log_decay = numbered(accumulator, {s.B, s.N, s.H, s.D}, 1);
  if (problem.module == Module::kRebased) {
    outputs.d_gamma = numbered(accumulator, {s.D}, 1);
    outputs.d_beta = numbered(accumulator, {s.D}, 2);
  }
  return outputs;
}

std::vector<std::byte> damaged(std::vector<std::byte> bytes, std::mt19937_64& random) {
  const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random() % limit); };
  static constexpr std::byte kExtremes[] = {std::byte{0}, std::byte{1}, std::byte{0x7f},
                                            std::byte{0x80}, std::byte{0xff}};
  const std::size_t edits = 1 + below(4);
  for (std::size_t edit = 0; edit < edits && !bytes.empty(); ++edit) {
    // Metadata stand at the front, and damage to it is what confuses a reader.
    const std::size_t range =
        random() % 4 == 0 ? bytes.size() : std::min<std::size_t>(bytes.size(), 4096);
    const std::size_t at = below(range);
    const std::size_t length = std::min<std::size_t>(1 + below(8), bytes.size() - at);
    switch (random() % 6) {
      case 0:  // one bit
        bytes[at] ^= std::byte{1} << below(8);
        break;
      case 1:  // an extreme byte
        bytes[at] = kExtremes[below(std::size(kExtremes))];
        break;
      case 2:  // an extreme number
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), length,
                    kExtremes[below(std::size(kExtremes))]);
        break;
      case 3:  // random bytes
        for (std::size_t i = 0; i < length; ++i) bytes[at + i] = static_cast<std::byte>(random());
        break;
      case 4: {  // a piece of the file in the wrong place
        const std::size_t from = below(bytes.size() - length + 1);
        std::memmove(bytes.data() + at, bytes.data() + from, length);
        break;
      }
      default:  // the end is missing, now and then
        if (random() % 8 == 0) bytes.resize(below(bytes.size()));
    }
  }
  return bytes;
}

}  // namespace sp::test
