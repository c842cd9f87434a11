// Descends axis by axis, and only into what the bounding box cannot decide.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/overlap.hpp"

namespace sp {
namespace {

struct Bytes {
  const std::byte* begin;
  const std::byte* end;
};

// `window` is what remains when the axes before `axis` are fixed; `first` is its first element.
bool overlaps_from(const Tensor& window, int axis, const std::byte* first, const Bytes& message) {
  const auto element = static_cast<std::int64_t>(size_of(window.dtype()));
  std::int64_t span = element;   // of the bounding box
  std::int64_t dense = element;  // if nothing lies between the elements
  for (int inner = axis; inner < 4; ++inner) {
    span += (window.extent(inner) - 1) * window.stride(inner) * element;
    dense *= window.extent(inner);
  }
  if (first >= message.end || first + span <= message.begin) return false;
  if (span == dense) return true;
  const std::int64_t stride = window.stride(axis) * element;
  for (std::int64_t i = 0; i < window.extent(axis); ++i) {
    if (overlaps_from(window, axis + 1, first + i * stride, message)) return true;
  }
  return false;
}

}  // namespace

bool overlaps(const Tensor& window, const Tensor& message) {
  if (window.data() == nullptr || message.data() == nullptr) return false;
  if (window.elements() == 0 || message.elements() == 0) return false;
  return overlaps_from(window, 0, window.data(),
                       {message.data(), message.data() + message.bytes()});
}

}  // namespace sp
