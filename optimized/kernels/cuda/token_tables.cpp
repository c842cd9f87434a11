// Tokens on the device: one upload per distinct block of tokens.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <tuple>

#include "optimized/kernels/cuda/views.hpp"

namespace sp::SP_GPU {
namespace {

// As it lies on the device: the spans, then the positions.
struct HostTable {
  std::vector<int2> spans;
  std::vector<int> positions;
  std::size_t span_bytes() const { return spans.size() * sizeof(int2); }
  std::size_t position_bytes() const { return positions.size() * sizeof(int); }
};

HostTable table_of(const Tokens& tokens) {
  HostTable table;
  table.positions.reserve(static_cast<std::size_t>(tokens.count()));
  for (const Run& run : tokens.runs()) {
    SP_CHECK(std::min(run.first, run.last()) >= 0 &&
                 std::max(run.first, run.last()) < std::numeric_limits<int>::max(),
             "positions on a GPU are 31-bit");
    for (std::int64_t i = 0; i < run.count; ++i) {
      table.positions.push_back(static_cast<int>(run.position(i)));
    }
  }
  for (auto tile = table.positions.begin(); tile != table.positions.end();) {
    const auto end = tile + std::min<std::ptrdiff_t>(kTileTokens, table.positions.end() - tile);
    const auto [smallest, largest] = std::minmax_element(tile, end);
    table.spans.push_back(int2{*smallest, *largest});
    tile = end;
  }
  return table;
}

}  // namespace

bool TokenTables::Before::operator()(const std::vector<Run>& a, const std::vector<Run>& b) const {
  return std::lexicographical_compare(
      a.begin(), a.end(), b.begin(), b.end(), [](const Run& x, const Run& y) {
        return std::tie(x.first, x.stride, x.count) < std::tie(y.first, y.stride, y.count);
      });
}

TokenTable TokenTables::of(const Tokens& tokens) {
  if (tokens.count() == 0) return {};
  SP_CHECK(tokens.count() <= 1 << 30, "a block on a GPU has up to 2^30 tokens");
  const std::size_t span_bytes =
      static_cast<std::size_t>((tokens.count() + kTileTokens - 1) / kTileTokens) * sizeof(int2);
  std::unique_ptr<Scratch>& scratch = tables_[tokens.runs()];
  if (scratch == nullptr) {
    const HostTable table = table_of(tokens);
    scratch = std::make_unique<Scratch>(
        gpu_, static_cast<std::int64_t>(table.span_bytes() + table.position_bytes()));
    // Pageable sources: they have been read when the calls return.
    check(cudaMemcpyAsync(scratch->as<std::byte>(), table.spans.data(), table.span_bytes(),
                          cudaMemcpyHostToDevice, gpu_.compute()),
          "upload of spans");
    check(cudaMemcpyAsync(scratch->as<std::byte>() + span_bytes, table.positions.data(),
                          table.position_bytes(), cudaMemcpyHostToDevice, gpu_.compute()),
          "upload of positions");
  }
  return {Global<const int>(reinterpret_cast<const int*>(scratch->as<std::byte>() + span_bytes)),
          Global<const int2>(scratch->as<const int2>()), tokens.count()};
}

}  // namespace sp::SP_GPU
