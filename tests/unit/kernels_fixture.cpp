// The plain loops and the transport of values that the kernel tests share.
// SPDX-License-Identifier: Apache-2.0
#include "kernels_fixture.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sp::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::size_t offset(const Tensor::Extents& shape, std::int64_t i, std::int64_t b, std::int64_t h,
                   std::int64_t d) {
  return static_cast<std::size_t>(((i * shape[1] + b) * shape[2] + h) * shape[3] + d);
}

// Calls f(reference to the element, flat index) in row-major order.
template <class T, class F>
void for_each_element(const Tensor& tensor, F f) {
  std::size_t flat = 0;
  for (std::int64_t i = 0; i < tensor.extent(0); ++i) {
    for (std::int64_t b = 0; b < tensor.extent(1); ++b) {
      for (std::int64_t h = 0; h < tensor.extent(2); ++h) {
        for (std::int64_t d = 0; d < tensor.extent(3); ++d) {
          f(tensor.as<T>()[i * tensor.stride(0) + b * tensor.stride(1) + h * tensor.stride(2) +
                           d * tensor.stride(3)],
            flat++);
        }
      }
    }
  }
}

}  // namespace

Values::Values(Tensor::Extents extents, double value)
    : shape(extents),
      data(static_cast<std::size_t>(extents[0] * extents[1] * extents[2] * extents[3]), value) {}

double& Values::at(std::int64_t i, std::int64_t b, std::int64_t h, std::int64_t d) {
  return data[offset(shape, i, b, h, d)];
}

double Values::at(std::int64_t i, std::int64_t b, std::int64_t h, std::int64_t d) const {
  return data[offset(shape, i, b, h, d)];
}

double Values::largest() const {
  double result = 0;
  for (const double value : data) result = std::max(result, std::fabs(value));
  return result;
}

Values KernelsTest::random(Tensor::Extents shape, DType dtype, double magnitude) {
  Values values(shape);
  for (double& value : values.data) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    const double unit = static_cast<double>(state_ >> 11) * 0x1p-53;
    value = magnitude * (2 * unit - 1);
    visit_dtype(dtype, [&]<class T>() { value = static_cast<double>(widen(narrow<T>(value))); });
  }
  return values;
}

Tensor KernelsTest::poisoned(Tensor::Extents shape, DType dtype, Placement placement) {
  if (placement == Placement::kDense) return memory_.allocate(dtype, shape, "test");
  Tensor::Extents larger = shape;
  for (std::int64_t& extent : larger) extent += 3;
  Tensor window = memory_.allocate(dtype, larger, "test window");
  for (int axis = 0; axis < 4; ++axis) {
    window = window.slice(axis, 1, 1 + shape[static_cast<std::size_t>(axis)]);
  }
  return window;
}

Tensor KernelsTest::put(const Values& values, DType dtype, Placement placement) {
  const Tensor tensor = poisoned(values.shape, dtype, placement);
  visit_dtype(dtype, [&]<class T>() {
    for_each_element<T>(
        tensor, [&](T& element, std::size_t flat) { element = narrow<T>(values.data[flat]); });
  });
  return tensor;
}

Tensor KernelsTest::put_ids(std::int64_t B, std::int64_t N, const std::vector<std::int32_t>& ids) {
  const Tensor tensor = memory_.allocate(DType::kI32, {B, N, 1, 1}, "segments");
  memory_.upload(tensor, ids.data());
  return tensor;
}

void KernelsTest::TearDown() { memory_.check_fences(); }

Values take(const Tensor& tensor) {
  Values values(tensor.shape());
  visit_dtype(tensor.dtype(), [&]<class T>() {
    for_each_element<T>(tensor, [&](T& element, std::size_t flat) {
      values.data[flat] = static_cast<double>(widen(element));
    });
  });
  return values;
}

void expect_within(const Values& actual, const Values& expected,
                   const std::function<double(std::size_t)>& limit, const std::string& what) {
  ASSERT_EQ(actual.shape, expected.shape) << what;
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    const bool same = actual.data[i] == expected.data[i];
    const bool near = std::fabs(actual.data[i] - expected.data[i]) <= limit(i);
    ASSERT_TRUE(same || near) << what << "[" << i << "] is " << actual.data[i] << ", expected "
                              << expected.data[i] << " within " << limit(i);
  }
}

void expect_within(const Values& actual, const Values& expected, double limit,
                   const std::string& what) {
  expect_within(actual, expected, [limit](std::size_t) { return limit; }, what);
}

void expect_bitwise(const Values& actual, const Values& expected, const std::string& what) {
  expect_within(actual, expected, 0, what);
}

PlainForward plain_attention(const PlainBlock& block) {
  const auto [n, B, H, D] = block.q.shape;
  const std::int64_t m = block.k.shape[0], G = block.k.shape[2], E = block.v.shape[3];
  PlainForward result{Values({n, B, H, E}), Values({n, B, H, 1}, -kInfinity), 0,
                      Values({n, B, H, m}), Values({n, B, H, m}, -kInfinity)};
  for (std::int64_t flat = 0; flat < n * B * H; ++flat) {
    const std::int64_t i = flat / (B * H), b = flat / H % B, h = flat % H, g = h / (H / G);
    double largest = -kInfinity;
    for (std::int64_t j = 0; j < m; ++j) {
      if (!block.sees(b, block.q_positions[static_cast<std::size_t>(i)],
                      block.k_positions[static_cast<std::size_t>(j)])) {
        continue;
      }
      double score = 0, terms = 0;
      for (std::int64_t d = 0; d < D; ++d) {
        const double term = block.scale * block.q.at(i, b, h, d) * block.k.at(j, b, g, d);
        score += term;
        terms += std::fabs(term);
      }
      result.scores.at(i, b, h, j) = score;
      result.largest_score = std::max(result.largest_score, terms);
      largest = std::max(largest, score);
    }
    if (largest == -kInfinity) continue;
    double sum = 0;
    for (std::int64_t j = 0; j < m; ++j) sum += std::exp(result.scores.at(i, b, h, j) - largest);
    result.lse.at(i, b, h, 0) = largest + std::log(sum);
    for (std::int64_t j = 0; j < m; ++j) {
      const double p = std::exp(result.scores.at(i, b, h, j) - largest) / sum;
      result.probabilities.at(i, b, h, j) = p;
      for (std::int64_t e = 0; e < E; ++e) result.out.at(i, b, h, e) += p * block.v.at(j, b, g, e);
    }
  }
  return result;
}

PlainGradients plain_attention_backward(const PlainBlock& block, const PlainForward& forward,
                                        const Values& d_out, const Values& delta) {
  const auto [n, B, H, D] = block.q.shape;
  const std::int64_t m = block.k.shape[0], G = block.k.shape[2], E = block.v.shape[3];
  PlainGradients result{Values(block.q.shape), Values(block.k.shape), Values(block.v.shape),
                        Values(block.q.shape), Values(block.k.shape), Values(block.v.shape)};
  for (std::int64_t flat = 0; flat < n * B * H * m; ++flat) {
    const std::int64_t i = flat / (B * H * m), b = flat / (H * m) % B, h = flat / m % H;
    const std::int64_t j = flat % m, g = h / (H / G);
    const double p = forward.probabilities.at(i, b, h, j);
    double dp = 0, terms = std::fabs(delta.at(i, b, h, 0));
    for (std::int64_t e = 0; e < E; ++e) {
      const double gradient = d_out.at(i, b, h, e);
      dp += gradient * block.v.at(j, b, g, e);
      terms += std::fabs(gradient * block.v.at(j, b, g, e));
      result.d_v.at(j, b, g, e) += p * gradient;
      result.d_v_terms.at(j, b, g, e) += std::fabs(p * gradient);
    }
    const double ds = block.scale * p * (dp - delta.at(i, b, h, 0));
    for (std::int64_t d = 0; d < D; ++d) {
      const double q = block.q.at(i, b, h, d), k = block.k.at(j, b, g, d);
      result.d_q.at(i, b, h, d) += ds * k;
      result.d_k.at(j, b, g, d) += ds * q;
      result.d_q_terms.at(i, b, h, d) += std::fabs(block.scale * p * terms * k);
      result.d_k_terms.at(j, b, g, d) += std::fabs(block.scale * p * terms * q);
    }
  }
  return result;
}

std::vector<std::int64_t> positions_of(const Tokens& tokens) {
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < tokens.count(); ++i) positions.push_back(tokens.position(i));
  return positions;
}

}  // namespace sp::test
