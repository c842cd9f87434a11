// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/mesh.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "reference/problem/error.hpp"

namespace sp {

Mesh::Mesh(std::vector<Axis> axes, int rank) : axes_(std::move(axes)), rank_(rank) {
  int ranks = 1;
  for (const Axis& axis : axes_) {
    SP_CHECK(axis.size >= 1, "an axis of a mesh has a rank at least");
    ranks *= axis.size;
  }
  SP_CHECK(rank >= 0 && rank < ranks, "a mesh is seen from one of its ranks");
}

std::size_t Mesh::find(std::string_view axis) const {
  const auto found = std::ranges::find(axes_, axis, &Axis::name);
  SP_CHECK(found != axes_.end(), fmt::format("no axis {} in the mesh {}", axis, describe()));
  return static_cast<std::size_t>(found - axes_.begin());
}

int Mesh::stride(std::size_t axis) const {
  int ranks = 1;
  for (std::size_t faster = axis + 1; faster < axes_.size(); ++faster) ranks *= axes_[faster].size;
  return ranks;
}

int Mesh::size(std::string_view axis) const { return axes_[find(axis)].size; }

int Mesh::index(std::string_view axis) const {
  const std::size_t found = find(axis);
  return rank_ / stride(found) % axes_[found].size;
}

Ranks Mesh::along(std::string_view axis) const {
  const int step = stride(find(axis));
  return {rank_ - index(axis) * step, step, size(axis)};
}

Mesh Mesh::at(std::string_view axis, int index) const {
  SP_CHECK(index >= 0 && index < size(axis), "a place on an axis of the mesh");
  Mesh other = *this;
  other.rank_ = along(axis)[index];
  return other;
}

Communicator& Mesh::group(Communicator& all, std::string_view axis,
                          std::string_view channel) const {
  const bool whole = size(axis) == all.size();
  if (whole && channel.empty()) return all;
  // A group's name stands for its partition of the ranks, so the mesh is part of it.
  return all.group(
      fmt::format("{} of {}{}{}", axis, describe(), channel.empty() ? "" : ", ", channel),
      along(axis));
}

std::string Mesh::describe() const {
  std::string text;
  for (const Axis& axis : axes_)
    text += fmt::format("{}{} {}", text.empty() ? "" : " x ", axis.name, axis.size);
  return text;
}

}  // namespace sp
