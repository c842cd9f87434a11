// Feature maps, the rules of the decays, and formulas of the papers that are wrong as printed.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "reference/feature_map.hpp"
#include "reference/linear_attention.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {
namespace {

using reference::dot;
using reference::Index;
using reference::Values;

Case map_case(Module module, Index D, std::uint64_t seed) {
  Case c;
  c.problem.shape = {1, 2, 1, 1, D, 1};
  c.problem.module = module;
  c.problem.dtype = DType::kF64;
  Draw draw(seed);
  c.inputs = draw.inputs(c.problem);
  draw_module_inputs(draw, c);
  return c;
}

Values features(const reference::FeatureMap& map, const double* x) {
  Values phi(static_cast<std::size_t>(map.features()));
  map.apply(x, phi.data());
  return phi;
}

TEST(ReferenceFeatureMap, ProductsAreTheKernelFunctions) {
  constexpr double kLimit = 1e-14;  // of the sum of the magnitudes
  for (const Module module : kModules) {
    for (Index D = 1; D <= 20; ++D) {
      SCOPED_TRACE(std::string(name_of(module)) + " D=" + std::to_string(D));
      const Case c = map_case(module, D, static_cast<std::uint64_t>(D));
      const reference::FeatureMap map(c.problem, c.inputs);
      Values q = reference::doubles(c.inputs.q, c.inputs.q.shape());
      Values k = reference::doubles(c.inputs.k, c.inputs.k.shape());
      const Values phi_q = features(map, q.data()), phi_k = features(map, k.data());
      double magnitude = 0;
      for (std::size_t f = 0; f < phi_q.size(); ++f) magnitude += std::abs(phi_q[f] * phi_k[f]);
      double expected = dot(q.data(), k.data(), D);
      const double size = static_cast<double>(D);
      if (module == Module::kBased) {
        const double s = expected / std::sqrt(size);
        expected = 1 + s + s * s / 2;
      } else if (module == Module::kRebased) {
        const reference::LayerNorm norm = reference::layer_norm(c.problem, c.inputs);
        Values y(q.size()), z(k.size());
        norm.apply(q.data(), y.data());
        norm.apply(k.data(), z.data());
        expected = std::pow(dot(y.data(), z.data(), D), 2) / size;
      }
      const double product = dot(phi_q.data(), phi_k.data(), map.features());
      ASSERT_TRUE(std::abs(product - expected) <= kLimit * std::max(1.0, magnitude));
    }
  }
}

TEST(ReferenceFeatureMap, OrderIsTheDocumentedOne) {
  const Case based = map_case(Module::kBased, 4, 0), rebased = map_case(Module::kRebased, 2, 0);
  const double x[] = {2, 3, 5, 7};
  const double r = std::sqrt(2.0), s = std::sqrt(8.0);  // D^(1/4), sqrt(2 D); sqrt(D) = 2
  const Values expected{1,      2 / r, 3 / r, 5 / r, 7 / r,   4 / s,   9 / s,  25 / s,
                        49 / s, 3,     5,     7,     15. / 2, 21. / 2, 35. / 2};
  const Values phi = features(reference::FeatureMap(based.problem, based.inputs), x);
  ASSERT_EQ(phi.size(), expected.size());
  for (std::size_t f = 0; f < phi.size(); ++f) EXPECT_NEAR(phi[f], expected[f], 1e-14);

  // The layer norm of (1, 3) is (-1, 1) up to its epsilon; gamma and beta make it (2, 5).
  Inputs inputs = rebased.inputs;
  inputs.gamma = HostTensor::from_doubles(DType::kF64, {2}, std::vector<double>{1, 2});
  inputs.beta = HostTensor::from_doubles(DType::kF64, {2}, std::vector<double>{3, 3});
  const double pair[] = {1, 3};
  const Values squares = features(reference::FeatureMap(rebased.problem, inputs), pair);
  const double root = std::sqrt(2.0);
  const Values expected_squares{4 / root, 25 / root, 10};
  ASSERT_EQ(squares.size(), expected_squares.size());
  for (std::size_t f = 0; f < squares.size(); ++f)
    EXPECT_NEAR(squares[f], expected_squares[f], 1e-4);
}

TEST(ReferenceDecay, OfRetentionNeverRoundsToNoDecay) {
  const std::vector<double> decays = default_log_decay(Module::kRetention, 64);
  EXPECT_NEAR(decays[0], std::log(31.0 / 32), 1e-16);
  for (std::size_t h = 0; h < decays.size(); ++h) {
    EXPECT_LT(decays[h], 0) << "head " << h;  // the logarithm of 1 - 2^-69 would be 0
    EXPECT_TRUE(h == 0 || decays[h] > decays[h - 1]) << "head " << h;
  }
}

TEST(ReferenceDecay, OfLightningServesHeadCountsThatAreNoPowerOfTwo) {
  EXPECT_EQ(default_log_decay(Module::kLightning, 1), (std::vector<double>{-0x1p-8}));
  EXPECT_EQ(default_log_decay(Module::kLightning, 4),
            (std::vector<double>{-0x1p-2, -0x1p-4, -0x1p-6, -0x1p-8}));
  // Those of 4 heads, then every second one of 8.
  EXPECT_EQ(default_log_decay(Module::kLightning, 6),
            (std::vector<double>{-0x1p-2, -0x1p-4, -0x1p-6, -0x1p-8, -0x1p-1, -0x1p-3}));
}

HostTensor column(std::initializer_list<double> values) {
  const std::vector<double> x(values);
  return HostTensor::from_doubles(DType::kF64, {1, std::ssize(x), 1, 1}, x);
}

// One channel, three tokens, by hand.
TEST(ReferenceDecay, BetweenTwoTokensIsThatOfTheLaterOnesAndNeverOfTheOwn) {
  Case c;
  c.problem.shape = {1, 3, 1, 1, 1, 1};
  c.problem.dtype = DType::kF64;
  c.problem.module = Module::kGla;
  c.problem.scale = 0.5;
  c.inputs.q = column({2, 4, 6});
  c.inputs.k = column({1, 3, 5});
  c.inputs.v = column({7, 11, 13});
  c.inputs.log_decay = column({std::log(0.125), std::log(0.5), std::log(0.25)});
  const double k1 = 7, k2 = 33, k3 = 65;  // key times value
  c.problem.mask.causal = true;
  EXPECT_TRUE(difference(reference::linear_attention(c.problem, c.inputs).out,
                         column({k1, 2 * (k2 + k1 / 2), 3 * (k3 + k2 / 4 + k1 / 8)})) <= 1e-13);
  c.problem.mask.causal = false;
  EXPECT_TRUE(difference(reference::linear_attention(c.problem, c.inputs).out,
                         column({k1 + k2 / 2 + k3 / 8, 2 * (k2 + k1 / 2 + k3 / 4),
                                 3 * (k3 + k2 / 4 + k1 / 8)})) <= 1e-13);
}

TEST(ReferenceNormaliser, IsTheSumOfTheWeightsAndEpsilon) {
  Case c;
  c.problem.shape = {1, 1, 1, 1, 1, 1};
  c.problem.dtype = DType::kF64;
  c.inputs.q = column({2});
  c.inputs.k = column({3});
  c.inputs.v = column({7});
  c.problem.module = Module::kBased;
  c.problem.epsilon = 5;  // the weight is 1 + 6 + 18
  EXPECT_TRUE(difference(reference::linear_attention(c.problem, c.inputs).out,
                         column({7. * 25 / 30})) <= 1e-14);
  c.problem.module = Module::kRebased;  // the layer norm of one channel is beta
  c.inputs.gamma = HostTensor::from_doubles(DType::kF64, {1}, std::vector<double>{9});
  c.inputs.beta = HostTensor::from_doubles(DType::kF64, {1}, std::vector<double>{3});
  EXPECT_TRUE(difference(reference::linear_attention(c.problem, c.inputs).out,
                         column({7. * 81 / 86})) <= 1e-14);
}

// One head of basic linear attention as matrices: T chunks of C tokens.
struct Chunks {
  static constexpr Index N = 12, D = 3, E = 2, C = 4;
  Case c;
  Values q, k, v, d_out;

  explicit Chunks(bool causal) {
    c.problem.shape = {1, N, 1, 1, D, E};
    c.problem.dtype = DType::kF64;
    c.problem.module = Module::kBasic;
    c.problem.mask.causal = causal;
    c.inputs = Draw(11).inputs(c.problem);
    q = reference::doubles(c.inputs.q, c.inputs.q.shape());
    k = reference::doubles(c.inputs.k, c.inputs.k.shape());
    v = reference::doubles(c.inputs.v, c.inputs.v.shape());
    d_out = reference::doubles(c.inputs.d_out, c.inputs.d_out.shape());
  }
  Outputs run() const { return reference::linear_attention(c.problem, c.inputs); }

  // sum over tokens [begin, end) of x_i <y_i, z>, for x [N, X] and y [N, z's size]
  static Values through(const Values& x, const Values& y, const Values& z, Index begin, Index end) {
    const Index size = std::ssize(x) / N;
    Values sum(static_cast<std::size_t>(size));
    for (Index i = begin; i < end; ++i)
      reference::add_scaled(sum.data(), dot(y.data() + i * std::ssize(z), z.data(), std::ssize(z)),
                            x.data() + i * size, size);
    return sum;
  }
  static Values row(const Values& x, Index i) {
    const Index size = std::ssize(x) / N;
    return {x.begin() + i * size, x.begin() + (i + 1) * size};
  }
};

// Largest |tensor [N, .] - formula(token)|, relative to the tensor's largest element.
double formula_error(const HostTensor& tensor, auto&& formula) {
  HostTensor other = tensor;
  for (Index i = 0; i < Chunks::N; ++i) {
    const Values row = formula(i);
    for (Index n = 0; n < std::ssize(row); ++n) other.set(i * std::ssize(row) + n, row.data()[n]);
  }
  return difference(other, tensor) / largest(tensor);
}

TEST(ReferenceErrata, AMaskOfMinusInfinityUnderAnElementwiseProductIsNoMask) {
  const Chunks chunks(true);
  const Outputs result = chunks.run();
  const auto product = [&](double hidden) {
    return formula_error(result.out, [&](Index i) {
      Values out(Chunks::E);
      for (Index j = 0; j < Chunks::N; ++j) {
        const double score =
            dot(chunks.q.data() + i * Chunks::D, chunks.k.data() + j * Chunks::D, Chunks::D);
        reference::add_scaled(out.data(), score * (j <= i ? 1 : hidden),
                              chunks.v.data() + j * Chunks::E, Chunks::E);
      }
      return out;
    });
  };
  EXPECT_TRUE(product(0) <= 1e-14);
  EXPECT_FALSE(product(-std::numeric_limits<double>::infinity()) <= 1e300);
}

TEST(ReferenceErrata, BidirectionalGradientsSumOverAllChunksNotOverLaterOnes) {
  const Chunks chunks(false);
  const Outputs result = chunks.run();
  // d_v_i = (sum of q d_outT over chunks)T k_i
  const auto error = [&](auto&& first) {
    return formula_error(result.d_v, [&](Index i) {
      return Chunks::through(chunks.d_out, chunks.q, Chunks::row(chunks.k, i), first(i), Chunks::N);
    });
  };
  EXPECT_TRUE(error([](Index) { return Index{0}; }) <= 1e-14);
  EXPECT_GT(error([](Index i) { return (i / Chunks::C + 1) * Chunks::C; }), 0.5);
}

TEST(ReferenceErrata, TheChainOfEarlierStatesIsNotBidirectional) {
  const Chunks chunks(false);
  const Outputs result = chunks.run();
  // out_i = (sum of k vT over chunks)T q_i
  const auto error = [&](auto&& last) {
    return formula_error(result.out, [&](Index i) {
      return Chunks::through(chunks.v, chunks.k, Chunks::row(chunks.q, i), 0, last(i));
    });
  };
  EXPECT_TRUE(error([](Index) { return Chunks::N; }) <= 1e-14);
  EXPECT_GT(error([](Index i) { return i / Chunks::C * Chunks::C; }), 0.5);
}

}  // namespace
}  // namespace sp::test
