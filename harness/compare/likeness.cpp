// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/likeness.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "harness/compare/compare.hpp"

namespace sp {
namespace {

constexpr std::int64_t kMostRows = 256;  // that are looked at for equal channels

// The mean number of equals of each, but zeros.
double equals_of_channels(const HostTensor& x) {
  if (x.absent() || x.size() == 0) return 1;
  const std::int64_t width = x.extent(3), rows = x.size() / width;
  const std::int64_t step = 1 + rows / kMostRows;
  double equals = 0, counted = 0;
  std::vector<double> sizes;
  for (std::int64_t row = 0; row < rows; row += step) {
    sizes.clear();
    for (std::int64_t c = 0; c < width; ++c)
      if (const double size = std::fabs(x.at(row * width + c)); size > 0) sizes.push_back(size);
    std::ranges::sort(sizes);
    for (auto begin = sizes.begin(); begin != sizes.end();) {
      const auto end = std::upper_bound(begin, sizes.end(), *begin);
      equals += std::pow(static_cast<double>(end - begin), 2);
      begin = end;
    }
    counted += static_cast<double>(sizes.size());
  }
  return counted > 0 ? equals / counted : 1;
}

std::uint64_t mixed(std::uint64_t hash, double value) {
  hash = (hash ^ __builtin_bit_cast(std::uint64_t, value)) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 32);
}

// The same of tokens, of the head that has most: those whose rows in both tensors are equal.
double equals_of_tokens(const HostTensor& a, const HostTensor& b) {
  double most = 1;
  const std::int64_t N = a.extent(1), heads = a.extent(2);
  for (std::int64_t batch = 0; batch < a.extent(0); ++batch) {
    for (std::int64_t h = 0; h < heads; ++h) {
      std::unordered_map<std::uint64_t, double> groups;
      double counted = 0, equals = 0;
      for (std::int64_t n = 0; n < N; ++n) {
        std::uint64_t hash = 1;
        bool zero = true;
        for (const HostTensor* x : {&a, &b}) {
          if (x->absent()) continue;
          const std::int64_t width = x->extent(3), first = ((batch * N + n) * heads + h) * width;
          for (std::int64_t c = 0; c < width; ++c) {
            const double value = x->at(first + c);
            zero = zero && value == 0;
            hash = mixed(hash, value);
          }
        }
        if (zero) continue;
        ++groups[hash];
        ++counted;
      }
      for (const auto& [hash, size] : groups) equals += size * size;
      if (counted > 0) most = std::max(most, equals / counted);
    }
  }
  return most;
}

void multiply(HostTensor& x, double factor) {
  for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, factor * x.at(i));
}

}  // namespace

void multiply_sizes(Outputs& sizes, double factor) {
  if (factor == 1) return;
  for (const ResultField& field : kAllResults) multiply(sizes.*field.tensor, factor);
}

double likeness(const Inputs& inputs) {
  const double tokens =
      std::max(equals_of_tokens(inputs.q, inputs.d_out), equals_of_tokens(inputs.k, inputs.v));
  const double channels =
      std::max(std::min(equals_of_channels(inputs.q), equals_of_channels(inputs.k)),
               std::min(equals_of_channels(inputs.d_out), equals_of_channels(inputs.v)));
  return std::sqrt(tokens * (channels < 2 ? 1 : channels));
}

double likeness_of_each(const Inputs& inputs) {
  double tokens = 1;
  for (const HostTensor* x : {&inputs.q, &inputs.k, &inputs.v, &inputs.d_out})
    if (!x->absent()) tokens = std::max(tokens, equals_of_tokens(*x, {}));
  return std::sqrt(tokens);
}

}  // namespace sp
