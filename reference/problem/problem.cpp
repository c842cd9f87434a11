// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 32;  // 4 G tokens; products stay below 2^63
constexpr std::int64_t kMaxElements = std::int64_t{1} << 42;

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kUsage, message);
}

void require_extent(const char* name, std::int64_t value, std::int64_t least) {
  require(value >= least && value <= kMaxExtent,
          fmt::format("{} = {} is out of range; allowed: {}..{}", name, value, least, kMaxExtent));
}

void require_elements(const char* name, std::int64_t B, std::int64_t N, std::int64_t heads,
                      std::int64_t size) {
  std::int64_t product = 0;
  const bool overflow = __builtin_mul_overflow(B, N, &product) ||
                        __builtin_mul_overflow(product, heads, &product) ||
                        __builtin_mul_overflow(product, size, &product);
  require(!overflow && product <= kMaxElements,
          fmt::format("tensor {} [{}, {}, {}, {}] is too large; allowed: {} elements", name, B, N,
                      heads, size, kMaxElements));
}

void require_tensor(const char* name, const HostTensor& tensor, DType dtype,
                    const std::vector<std::int64_t>& shape) {
  require(!tensor.absent(), fmt::format("tensor {} is missing", name));
  require(tensor.shape() == shape,
          fmt::format("tensor {} has shape {}, expected {}", name, describe_shape(tensor.shape()),
                      describe_shape(shape)));
  require(tensor.dtype() == dtype, fmt::format("tensor {} has type {}, expected {}", name,
                                               name_of(tensor.dtype()), name_of(dtype)));
  visit_dtype(dtype, [&]<class T>() {
    const std::span<const T> values = tensor.as<T>();
    const auto finite = [](T value) { return std::isfinite(static_cast<double>(widen(value))); };
    const auto bad = std::find_if_not(values.begin(), values.end(), finite);
    if (bad == values.end()) return;
    const auto at = bad - values.begin();
    require(false, fmt::format("tensor {} holds {} at element {}; inputs must be finite", name,
                               tensor.at(at), at));
  });
}

}  // namespace

double default_scale(const Shape& shape) { return 1.0 / std::sqrt(static_cast<double>(shape.D)); }

void validate(const Problem& problem) {
  const Shape& s = problem.shape;
  require_extent("batch B", s.B, 0);
  require_extent("tokens N", s.N, 0);
  require_extent("query heads H", s.H, 1);
  require_extent("key/value heads G", s.G, 1);
  require_extent("head size D", s.D, 1);
  require_extent("value head size E", s.E, 1);
  require(s.H % s.G == 0,
          fmt::format("key/value heads G = {} must divide query heads H = {}", s.G, s.H));
  require_elements("q", s.B, s.N, s.H, s.D);
  require_elements("out", s.B, s.N, s.H, s.E);
  require(std::isfinite(problem.scale), "scale must be finite");
  // Bounded, so that position + window stays below 2^63.
  require(problem.mask.window >= 0 && problem.mask.window <= kMaxExtent,
          fmt::format("window = {} is out of range; allowed: 1..{}, or none", problem.mask.window,
                      kMaxExtent));
  require(problem.dtype != DType::kI32, "i32 is not a tensor type; allowed: f32, bf16, f16, f64");
  const std::size_t ids = problem.mask.segment_ids.size();
  require(ids == 0 || static_cast<std::int64_t>(ids) == s.B * s.N,
          fmt::format("segment_ids has {} elements, expected [{}, {}]", ids, s.B, s.N));
  require(problem.projected >= 0 && problem.projected <= kMaxExtent,
          fmt::format("projected length = {} is out of range", problem.projected));
  if (problem.projected > 0) {
    require(!problem.mask.causal && problem.mask.window == 0 && ids == 0,
            "projected (Linformer) attention has no mask: projected keys have no positions");
  }
}

void validate(const Problem& problem, const Inputs& inputs) {
  validate(problem);
  const Shape& s = problem.shape;
  require_tensor("q", inputs.q, problem.dtype, {s.B, s.N, s.H, s.D});
  require_tensor("k", inputs.k, problem.dtype, {s.B, s.N, s.G, s.D});
  require_tensor("v", inputs.v, problem.dtype, {s.B, s.N, s.G, s.E});
  if (!inputs.d_out.absent()) {
    require_tensor("d_out", inputs.d_out, problem.dtype, {s.B, s.N, s.H, s.E});
  }
  if (problem.projected > 0) {
    require_tensor("projection_k", inputs.projection_k, problem.dtype, {s.N, problem.projected});
    require_tensor("projection_v", inputs.projection_v, problem.dtype, {s.N, problem.projected});
  }
}

std::string describe(const Problem& problem) {
  const Shape& s = problem.shape;
  std::string text = fmt::format("B={} N={} H={} G={} D={} E={} {} scale={:.6g}", s.B, s.N, s.H,
                                 s.G, s.D, s.E, name_of(problem.dtype), problem.scale);
  if (problem.mask.causal) text += " causal";
  if (problem.mask.window > 0) text += fmt::format(" window={}", problem.mask.window);
  if (!problem.mask.segment_ids.empty()) {
    const std::set<std::int32_t> ids(problem.mask.segment_ids.begin(),
                                     problem.mask.segment_ids.end());
    text += fmt::format(" segments={}", ids.size());
  }
  if (problem.projected > 0) text += fmt::format(" projected={}", problem.projected);
  return text;
}

}  // namespace sp
