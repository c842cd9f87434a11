// The museum of bugs: what shipped in public libraries of sequence-parallel attention, and which mutant stands for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "harness/mutants/mutants.hpp"

namespace sp {

struct Exhibit {
  const char* bug;    // one phrase
  const char* where;  // issues, as "project #number"
  const char* mutant;
  const char* algorithm;
  bool rounds_to_storage = false;  // which is no fault where storage is f32
};
std::span<const Exhibit> museum();

}  // namespace sp
