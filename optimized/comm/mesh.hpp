// A mesh: ranks as a grid with named axes, e.g. nodes of so many ranks each.
//
// Axes are listed from the slowest to the fastest: ranks that differ in the last one alone are
// consecutive. A mesh is seen from one of its ranks. It is pure arithmetic, of which cost() and
// every rank derive the same; group() alone communicates.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "optimized/comm/communicator.hpp"
#include "optimized/sharding/layout.hpp"

namespace sp {

class Mesh {
 public:
  struct Axis {
    std::string_view name;  // a string literal
    int size;
  };
  Mesh(std::vector<Axis> axes, int rank);

  int size(std::string_view axis) const;
  int index(std::string_view axis) const;  // the rank's place on it
  // The ranks that differ from this one in this axis alone, by their place on it.
  Ranks along(std::string_view axis) const;
  // The same mesh from the rank with another place on this axis.
  Mesh at(std::string_view axis, int index) const;
  // along(axis) as a communicator, kept by `all`, whose ranks the mesh is made of: `all` itself if
  // these are all ranks. Collective at its first call. Another `channel` is another communicator
  // over the same ranks.
  Communicator& group(Communicator& all, std::string_view axis,
                      std::string_view channel = "") const;
  std::string describe() const;  // "node 2 x local 4"

 private:
  std::size_t find(std::string_view axis) const;
  int stride(std::size_t axis) const;

  std::vector<Axis> axes_;
  int rank_;
};

}  // namespace sp
