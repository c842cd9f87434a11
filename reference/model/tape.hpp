// What a model computes, and how its gradients come back: every operation leaves a step on the tape
// that adds the gradients of its operands from that of its result.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <ranges>
#include <utility>
#include <vector>

#include "reference/vectors.hpp"

namespace sp::reference {

// A matrix in double and its gradient; rows are tokens, or the rows of a parameter.
struct Node {
  Node(Index rows_, Index columns_)
      : rows(rows_), columns(columns_), value(size()), gradient(size()) {}
  std::size_t size() const { return static_cast<std::size_t>(rows * columns); }
  double* row(Index i) { return value.data() + i * columns; }
  double* d_row(Index i) { return gradient.data() + i * columns; }

  Index rows, columns;
  Values value, gradient;
};
using Variable = std::shared_ptr<Node>;

inline Variable make(Index rows, Index columns) { return std::make_shared<Node>(rows, columns); }

class Tape {
 public:
  void add(std::function<void()> backward) { steps_.push_back(std::move(backward)); }
  // From the last operation to the first.
  void run_back() const {
    for (const auto& step : std::views::reverse(steps_)) step();
  }

 private:
  std::vector<std::function<void()>> steps_;
};

}  // namespace sp::reference
