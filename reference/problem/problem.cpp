// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/problem.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 32;  // 4 G tokens; products stay below 2^63
constexpr std::int64_t kMaxElements = std::int64_t{1} << 42;

constexpr std::size_t kMostLayers = 64;
constexpr std::array<std::string_view, 6> kModuleNames{"basic", "lightning", "retention",
                                                       "gla",   "based",     "rebased"};

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

// What only linear attention and hybrid stacks know.
void validate_module(const Problem& problem) {
  const bool window = problem.mask.window > 0;
  require(std::isfinite(problem.epsilon) && problem.epsilon >= 0,
          fmt::format("epsilon = {} is impossible; allowed: 0 or more", problem.epsilon));
  if (!problem.module) {
    require(problem.layers.empty(), "a hybrid stack needs the module of its L layers");
    return;
  }
  const Module module = *problem.module;
  require(problem.projected == 0, "projected attention has no module: it is softmax attention");
  require(
      problem.layers.empty() || (decay_of(module) != Decay::kPerChannel && !is_normalised(module)),
      fmt::format("module {} in a hybrid stack is not supported; allowed: basic, lightning, "
                  "retention",
                  name_of(module)));
  require(is_normalised(module) || problem.epsilon == 0,
          fmt::format("module {} has no normaliser that epsilon could be added to; allowed: 0",
                      name_of(module)));
  require(
      !is_normalised(module) || problem.scale == 1,
      fmt::format("scale = {} is impossible: the feature map of {} scales by itself; allowed: 1",
                  problem.scale, name_of(module)));
  require(!window || (module == Module::kBased && problem.mask.causal && problem.layers.empty()),
          "linear attention has no window; allowed: with module based, causal, where it adds "
          "softmax attention over the window");
  if (problem.layers.empty()) return;
  require(
      problem.layers.size() <= kMostLayers &&
          problem.layers.find_first_not_of("LN") == std::string::npos,
      fmt::format("layers '{}' is no stack; allowed: up to {} letters L (linear) and N (softmax)",
                  problem.layers, kMostLayers));
  require(problem.shape.E == problem.shape.D,
          fmt::format("value head size E = {} of a hybrid stack must equal head size D = {}: "
                      "outputs are the next layer's queries",
                      problem.shape.E, problem.shape.D));
  require(problem.mask.causal, "a hybrid stack is causal");
}

void require_decay(const HostTensor& decay, DType dtype, const std::vector<std::int64_t>& shape) {
  for (std::int64_t i = 0; i < decay.size(); ++i) {
    const double value = decay.at(i);
    require(value <= 0 && std::isfinite(value),
            fmt::format("tensor log_decay holds {} at element {}; allowed: finite numbers, 0 or "
                        "less; a reset of the state is a change of segment_ids",
                        value, i));
  }
  require_tensor("log_decay", decay, dtype, shape);
}

}  // namespace

std::string_view name_of(Family family) {
  switch (family) {
    case Family::kSoftmax:
      return "softmax";
    case Family::kProjectedSoftmax:
      return "projected softmax";
    case Family::kLinear:
      return "linear";
    case Family::kHybrid:
      return "hybrid";
  }
  return "unknown";
}

std::string_view name_of(Module module) { return kModuleNames[static_cast<std::size_t>(module)]; }

Module parse_module(std::string_view name) {
  const auto found = std::find(kModuleNames.begin(), kModuleNames.end(), name);
  require(found != kModuleNames.end(),
          fmt::format("unknown module '{}'; allowed: {}", name, fmt::join(kModuleNames, ", ")));
  return static_cast<Module>(found - kModuleNames.begin());
}

double default_epsilon(Module module) {
  if (module == Module::kBased) return 1e-10;
  return module == Module::kRebased ? 1e-5 : 0;
}

std::vector<double> default_log_decay(Module module, std::int64_t H) {
  std::vector<double> decays;
  if (module == Module::kRetention) {
    // log1p in double: 1 - 2^(-5-h) is 1 in f32 from h = 20 on.
    for (std::int64_t h = 0; h < H; ++h)
      decays.push_back(std::log1p(-std::exp2(-5 - static_cast<double>(h))));
    return decays;
  }
  // Slopes 2^(-8h/H) for a power of two; otherwise those of the power p below H, then every second
  // slope of the list for 2p (lightning-attention, Linear-MoE).
  std::int64_t p = 1;
  while (2 * p <= H) p *= 2;
  const auto slope = [](std::int64_t h, std::int64_t heads) {
    return -std::exp2(-8 * static_cast<double>(h) / static_cast<double>(heads));
  };
  for (std::int64_t h = 1; h <= std::min(p, H); ++h) decays.push_back(slope(h, p));
  for (std::int64_t h = 1; std::ssize(decays) < H; h += 2) decays.push_back(slope(h, 2 * p));
  return decays;
}

Problem layer_of(const Problem& stack, std::int64_t layer) {
  Problem problem = stack;
  problem.layers.clear();
  if (stack.layers[static_cast<std::size_t>(layer)] == 'N') problem.module.reset();
  return problem;
}

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
  require_elements("q", s.B, s.N, s.H * problem.layer_count(), s.D);
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
  validate_module(problem);
}

void validate(const Problem& problem, const Inputs& inputs) {
  validate(problem);
  const Shape& s = problem.shape;
  require_tensor("q", inputs.q, problem.dtype, {s.B, s.N, s.H, s.D});
  const std::int64_t G = s.G * problem.layer_count();
  require_tensor("k", inputs.k, problem.dtype, {s.B, s.N, G, s.D});
  require_tensor("v", inputs.v, problem.dtype, {s.B, s.N, G, s.E});
  if (!inputs.d_out.absent()) {
    require_tensor("d_out", inputs.d_out, problem.dtype, {s.B, s.N, s.H, s.E});
  }
  if (problem.projected > 0) {
    require_tensor("projection_k", inputs.projection_k, problem.dtype, {s.N, problem.projected});
    require_tensor("projection_v", inputs.projection_v, problem.dtype, {s.N, problem.projected});
  }
  if (!problem.module) return;
  const DType accumulator = accumulator_of(problem.dtype);
  const Decay decay = decay_of(*problem.module);
  if (decay == Decay::kPerHead) require_decay(inputs.log_decay, accumulator, {s.H});
  if (decay == Decay::kPerChannel)
    require_decay(inputs.log_decay, accumulator, {s.B, s.N, s.H, s.D});
  if (problem.module == Module::kRebased) {
    require_tensor("gamma", inputs.gamma, accumulator, {s.D});
    require_tensor("beta", inputs.beta, accumulator, {s.D});
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
  if (problem.module) text += fmt::format(" module={}", name_of(*problem.module));
  if (problem.epsilon > 0) text += fmt::format(" epsilon={:.3g}", problem.epsilon);
  if (!problem.layers.empty()) text += fmt::format(" layers={}", problem.layers);
  return text;
}

}  // namespace sp
