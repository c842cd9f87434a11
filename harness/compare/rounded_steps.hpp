// The loop that sizes of linear attention spend their time in: many steps of one row of a state, which stays in registers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace sp::rounded_steps {

inline constexpr std::int64_t kLanes = 8;  // rows are padded to a multiple

// Letters are those of rounded_state.hpp.
struct Row {
  double *s, *r, *t0;                    // [size]
  double *columns, *rows, *t1, *t2, *l;  // [size], null: nothing decays
  std::int64_t size;                     // a multiple of kLanes
  // Step n: times decay[n * stride], an exponent away; then plus x[n * stride] y[n], of which `adds` sums are stored.
  const double *decay, *exponent, *x;
  std::int64_t stride;
  const double* adds;  // [count]
  const double* y;     // [count, size]
  std::int64_t count;
};

void apply(const Row& row);

}  // namespace sp::rounded_steps
