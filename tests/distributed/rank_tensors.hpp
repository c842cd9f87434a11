// Small tensors with recognisable contents, and what an error said: shared by the communicator
// tests.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "optimized/kernels/cpu/cpu_memory.hpp"

namespace sp::test {

constexpr std::chrono::milliseconds kPatient{20'000};  // sanitizers on a busy machine
constexpr std::chrono::milliseconds kHasty{300};       // where the limit is meant to pass

// Bytes that tell who wrote them: any pattern is a value of any type.
inline Tensor written_by(Memory& memory, DType dtype, std::int64_t rows, int author, int step = 0) {
  const Tensor tensor = memory.allocate(dtype, {rows, 1, 1, 3}, "written");
  auto state = static_cast<std::uint32_t>(author * 1000 + step + 1) * 2654435761u;
  for (std::int64_t i = 0; i < tensor.bytes(); ++i) {
    state = state * 1664525u + 1013904223u;
    tensor.data()[i] = static_cast<std::byte>(state >> 24);
  }
  return tensor;
}

inline Tensor blank(Memory& memory, DType dtype, std::int64_t rows) {
  return memory.allocate(dtype, {rows, 1, 1, 3}, "blank");
}

inline std::vector<std::byte> bytes_of(const Tensor& tensor) {
  return {tensor.data(), tensor.data() + tensor.bytes()};
}

inline bool same_bytes(const Tensor& a, const Tensor& b) { return bytes_of(a) == bytes_of(b); }

// Numbers whose sum depends on the order of summation.
template <class T>
T summand(int rank, std::int64_t i) {
  const auto mixed = static_cast<std::uint32_t>(rank * 7919 + i * 104729 + 13) * 2654435761u;
  const T unit = static_cast<T>(mixed >> 8) / static_cast<T>(1 << 24) - static_cast<T>(0.5);
  return mixed % 3 == 0 ? unit * static_cast<T>(1000) : unit;
}

template <class T>
T sum_over_ranks(int ranks, std::int64_t i) {
  T sum = summand<T>(0, i);
  for (int rank = 1; rank < ranks; ++rank) sum += summand<T>(rank, i);
  return sum;
}

// What the action threw, or "" if it returned.
template <class F>
std::string failure_of(F&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool says(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

}  // namespace sp::test
