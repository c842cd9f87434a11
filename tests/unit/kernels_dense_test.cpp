// The dense family on the CPU against the operations of the reference model, in every type.
//
// Limits: a result is rounded once to its type; what comes before happens in the accumulator type and
// may lose kLost of its roundoffs, of the tensor's largest element. Smallest defect that is refused: as
// much, 4e-6 of the largest in f32.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "optimized/kernels/cpu/cpu_dense_kernels.hpp"
#include "reference/model/operations.hpp"
#include "tests/unit/kernels_fixture.hpp"

namespace sp::test {
namespace {

using reference::make;
using reference::Tape;
using reference::Variable;
using Extents = Tensor::Extents;

constexpr double kLost = 64;

struct DenseCase {
  DType dtype;
  std::int64_t n;  // tokens, of two sequences
};

class DenseKernelsTest : public KernelsTest, public testing::WithParamInterface<DenseCase> {
 protected:
  static constexpr std::int64_t B = 2;
  DType dtype() const { return GetParam().dtype; }
  DType sums() const { return accumulator_of(dtype()); }
  std::int64_t n() const { return GetParam().n; }

  // Rows of the last axis.
  static Variable variable(const Values& values) {
    const std::int64_t columns = values.shape[3];
    const Variable v = make(values.shape[0] * values.shape[1] * values.shape[2], columns);
    v->value = values.data;
    return v;
  }
  // Backward from d_y.
  static void run_back(const Tape& tape, const Variable& y, const Values& d_y) {
    y->gradient = d_y.data;
    tape.run_back();
  }
  // `held`: what the tensor held before a gradient was added.
  static void expect_near(const Tensor& actual, const std::vector<double>& expected,
                          const char* what, double held = 0) {
    Values wanted(actual.shape());
    for (std::size_t i = 0; i < expected.size(); ++i) wanted.data[i] = expected[i] + held;
    const double lost = kLost * unit_roundoff(accumulator_of(actual.dtype())) * wanted.largest();
    const double u = unit_roundoff(actual.dtype());
    // Below its smallest normal number a type has one distance.
    const double least = actual.dtype() == DType::kF16 ? 0x1p-25 : 0;
    expect_within(
        take(actual), wanted,
        [&](std::size_t i) { return u * std::fabs(wanted.data[i]) + lost + least; }, what);
  }
  Tensor zeros(Extents shape) { return put(Values(shape, 0), sums()); }
  Tensor holding(Extents shape) { return put(Values(shape, kHeld), sums()); }
  Tensor put_integers(Extents shape, const std::vector<std::int32_t>& ids) {
    const Tensor tensor = memory_.allocate(DType::kI32, shape, "ids");
    memory_.upload(tensor, ids.data());
    return tensor;
  }
  std::vector<std::int32_t> ids_below(std::int64_t count) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < n() * B; ++i)
      ids.push_back(static_cast<std::int32_t>((i * 7 + i * i) % count));
    return ids;
  }

  static constexpr double kHeld = 0.5;
  CpuDenseKernels dense_;
};

TEST_P(DenseKernelsTest, Product) {
  for (const auto& [from, to] : {std::pair<std::int64_t, std::int64_t>{7, 9}, {130, 70}, {1, 1}}) {
    for (const bool biased : {false, true}) {
      const Values x = random({n(), B, 1, from}, dtype()), w = random({to, 1, 1, from}, dtype());
      const Values b = random({1, 1, 1, to}, dtype()), d_y = random({n(), B, 1, to}, dtype());
      Tape tape;
      const Variable vx = variable(x), vw = variable(w), vb = biased ? variable(b) : nullptr;
      const Variable vy = project(tape, vx, vw, vb);
      run_back(tape, vy, d_y);
      const Tensor bias = biased ? put(b, dtype()) : Tensor();
      for (const DType type : {dtype(), sums()}) {
        const Tensor y = poisoned(d_y.shape, type);
        dense_.product(y, put(x, dtype()), put(w, dtype()), bias);
        expect_near(y, vy->value, "y");
      }
      const Tensor d_x = holding(x.shape), d_w = holding(w.shape);
      const Tensor d_b = biased ? holding(b.shape) : Tensor();
      dense_.product_d_x(d_x, put(d_y, dtype()), put(w, dtype()));
      dense_.product_d_weight(d_w, d_b, put(d_y, dtype()), put(x, dtype()));
      expect_near(d_x, vx->gradient, "d_x", kHeld);
      expect_near(d_w, vw->gradient, "d_weight", kHeld);
      if (biased) expect_near(d_b, vb->gradient, "d_bias", kHeld);
    }
  }
}

TEST_P(DenseKernelsTest, NormsOfRowsAndHeads) {
  const double epsilon = 1e-3;
  for (const bool centred : {false, true}) {
    for (const std::int64_t heads : {1, 3}) {
      if (centred && heads > 1) continue;  // the reference norms whole rows there
      const Extents shape{n(), B, heads, 11};
      const Values x = random(shape, sums()), d_y = random(shape, dtype());
      const Values gain = random({1, 1, 1, 11}, sums()), bias = random({1, 1, 1, 11}, sums());
      Tape tape;
      const Variable vx = variable(x), vg = variable(gain), vb = variable(bias);
      const Variable vy =
          centred ? layer_norm(tape, vx, vg, vb, epsilon) : rms_norm(tape, vx, vg, epsilon);
      run_back(tape, vy, d_y);
      const Extents rows{n(), B, heads, 1};
      const NormRows kept{centred ? poisoned(rows, sums()) : Tensor(), poisoned(rows, sums())};
      const Tensor y = poisoned(shape, dtype());
      dense_.norm(y, put(x, sums()), put(gain, sums()), centred ? put(bias, sums()) : Tensor(),
                  kept, epsilon);
      expect_near(y, vy->value, "y");
      const Tensor d_x = holding(shape), d_g = holding(gain.shape);
      const Tensor d_b = centred ? holding(bias.shape) : Tensor();
      dense_.norm_backward(d_x, d_g, d_b, put(d_y, dtype()), put(x, sums()), put(gain, sums()),
                           kept);
      expect_near(d_x, vx->gradient, "d_x", kHeld);
      expect_near(d_g, vg->gradient, "d_gain", kHeld);
      if (centred) expect_near(d_b, vb->gradient, "d_bias", kHeld);
    }
  }
}

TEST_P(DenseKernelsTest, RotationByPositionInTheSequence) {
  const Extents shape{n(), B, 3, 10};
  const Values x = random(shape, dtype()), d_y = random(shape, dtype());
  const std::int64_t half = n() / 2;
  const Tokens tokens({{100000, 3, half}, {5, 1, n() - half}});  // two runs, far away
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < n(); ++i)
    for (std::int64_t row = 0; row < B; ++row) positions.push_back(tokens.position(i));
  Tape tape;
  const Variable vx = make(n() * B, 30);
  vx->value = x.data;
  const Variable vy = rotate(tape, vx, 10, 500, positions);
  run_back(tape, vy, d_y);
  const Tensor y = put(x, dtype()), d_x = poisoned(shape, dtype());
  dense_.rotate(y, y, tokens, 500, 1);
  dense_.rotate(d_x, put(d_y, dtype()), tokens, 500, -1);
  expect_near(y, vy->value, "y");
  expect_near(d_x, vx->gradient, "d_x");
}

TEST_P(DenseKernelsTest, Activations) {
  const Extents shape{n(), B, 1, 13};
  const Values x = random(shape, dtype(), 8), d_y = random(shape, dtype());
  for (const Activation f :
       {Activation::kSilu, Activation::kGelu, Activation::kTanh, Activation::kLogSigmoid}) {
    const double factor = f == Activation::kLogSigmoid ? 0.0625 : 1;
    Tape tape;
    const Variable vx = variable(x);
    const Variable vy = f == Activation::kSilu   ? silu(tape, vx)
                        : f == Activation::kGelu ? gelu(tape, vx)
                        : f == Activation::kTanh ? tanh(tape, vx)
                                                 : log_sigmoid(tape, vx, factor);
    run_back(tape, vy, d_y);
    const Tensor y = put(x, dtype()), d = put(d_y, dtype());
    dense_.activate(y, y, f, factor);
    dense_.activate_backward(d, d, put(x, dtype()), f, factor);
    expect_near(y, vy->value, "y");
    expect_near(d, vx->gradient, "d_x");
  }
}

TEST_P(DenseKernelsTest, ActivationsOfHugeValuesAreFinite) {
  const Values x({1, 1, 1, 4});
  Values huge = x;
  huge.data = {-60000, 60000, -88, 88};
  const Tensor in = put(huge, dtype());
  for (const Activation f :
       {Activation::kSilu, Activation::kGelu, Activation::kTanh, Activation::kLogSigmoid}) {
    const Tensor y = poisoned(x.shape, dtype()), d = poisoned(x.shape, dtype());
    dense_.activate(y, in, f);
    dense_.activate_backward(d, in, in, f);
    for (const Tensor& each : {y, d})
      for (const double value : take(each).data) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_P(DenseKernelsTest, Gates) {
  const Extents shape{n(), B, 1, 13};
  const Values gates = random(shape, dtype(), 4), x = random(shape, dtype());
  const Values d_y = random(shape, dtype());
  Tape tape;
  const Variable vg = variable(gates), vx = variable(x);
  const Variable vy = multiply(tape, silu(tape, vg), vx);
  run_back(tape, vy, d_y);
  const Tensor y = poisoned(shape, dtype());
  dense_.gate(y, put(gates, dtype()), put(x, dtype()));
  expect_near(y, vy->value, "y");
  const Tensor d_gates = put(gates, dtype()), d_x = put(x, dtype());  // in the operands' place
  dense_.gate_backward(d_gates, d_x, put(d_y, dtype()), d_gates, d_x);
  expect_near(d_gates, vg->gradient, "d_gates");
  expect_near(d_x, vx->gradient, "d_x");
}

// A table in two parts, as ranks would hold it.
TEST_P(DenseKernelsTest, EmbeddingInParts) {
  constexpr std::int64_t kRows = 9, kCut = 4;
  const Values table = random({kRows, 1, 1, 5}, dtype()), d_y = random({n(), B, 1, 5}, dtype());
  const std::vector<std::int32_t> ids = ids_below(kRows);
  Tape tape;
  const Variable vt = variable(table);
  const Variable vy = look_up(tape, vt, ids);
  run_back(tape, vy, d_y);
  const Tensor whole = put(table, dtype()), places = put_integers({n(), B, 1, 1}, ids);
  const Tensor y = holding(d_y.shape), d_table = holding(table.shape);
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, kCut}, {kCut, kRows}}) {
    dense_.embed(y, whole.rows(begin, end), places, begin);
    dense_.embed_backward(d_table.rows(begin, end), put(d_y, dtype()), places, begin);
  }
  expect_near(y, vy->value, "y", kHeld);
  expect_near(d_table, vt->gradient, "d_table", kHeld);
}

// The vocabulary whole, and in two parts whose log-sum-exps are joined.
TEST_P(DenseKernelsTest, CrossEntropyInParts) {
  constexpr std::int64_t kVocabulary = 37, kCut = 20;
  const Values logits = random({n(), B, 1, kVocabulary}, dtype(), 10);
  const std::vector<std::int32_t> targets = ids_below(kVocabulary);
  Values weights({n(), B, 1, 1});
  for (std::size_t i = 0; i < weights.data.size(); ++i)
    weights.data[i] = i % 3 == 1 ? 0 : 0.25 * static_cast<double>(i % 5 + 1);
  Tape tape;
  const Variable vl = variable(logits);
  const Variable loss = cross_entropy(tape, vl, targets, weights.data);
  loss->gradient[0] = 1;
  tape.run_back();

  const Tensor w = put(weights, sums()), places = put_integers(weights.shape, targets);
  std::vector<Tensor> parts, lse, picked;
  for (const auto& [begin, end] :
       {std::pair<std::int64_t, std::int64_t>{0, kCut}, {kCut, kVocabulary}}) {
    const Tensor part = poisoned({n(), B, 1, end - begin}, dtype());
    kernels_.copy(part, put(logits, dtype()).slice(3, begin, end));
    parts.push_back(part);
    lse.push_back(poisoned(weights.shape, sums()));
    picked.push_back(poisoned(weights.shape, sums()));
    dense_.vocabulary_rows(lse.back(), picked.back(), part, places, begin);
  }
  Values all(weights.shape), chosen(weights.shape);
  const Values a = take(lse[0]), b = take(lse[1]), p = take(picked[0]), q = take(picked[1]);
  for (std::size_t i = 0; i < all.data.size(); ++i) {
    const double largest = std::max(a.data[i], b.data[i]);
    all.data[i] = largest + std::log(std::exp(a.data[i] - largest) + std::exp(b.data[i] - largest));
    chosen.data[i] = p.data[i] + q.data[i];
  }
  const Tensor total = zeros({1, 1, 1, 1}), joined = put(all, sums());
  dense_.cross_entropy(total, joined, put(chosen, sums()), w);
  expect_near(total, loss->value, "loss");
  for (std::size_t part = 0; part < 2; ++part) {
    const std::int64_t begin = part == 0 ? 0 : kCut;
    dense_.cross_entropy_backward(parts[part], parts[part], joined, places, w, begin);
    std::vector<double> expected;
    for (std::int64_t i = 0; i < n() * B; ++i)
      for (std::int64_t c = 0; c < parts[part].extent(3); ++c)
        expected.push_back(vl->gradient[static_cast<std::size_t>(i * kVocabulary + begin + c)]);
    // An exponential of a difference of logits: the roundoff of the logits counts.
    expect_near(parts[part], expected, "d_logits");
  }
}

TEST_P(DenseKernelsTest, RowsOfWeightZeroMayHoldAnything) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const Tensor logits = put(Values({2, 1, 1, 5}, kNaN), dtype());
  const Tensor rows = put(Values({2, 1, 1, 1}, kNaN), sums());
  const Tensor weights = put(Values({2, 1, 1, 1}, 0), sums()), loss = zeros({1, 1, 1, 1});
  const Tensor targets = put_integers({2, 1, 1, 1}, {0, 4});
  dense_.cross_entropy(loss, rows, rows, weights);
  dense_.cross_entropy_backward(logits, logits, rows, targets, weights, 0);
  expect_near(loss, {0}, "loss");
  expect_near(logits, std::vector<double>(10, 0), "d_logits");
}

TEST_P(DenseKernelsTest, StepsOfTheOptimiser) {
  const Extents shape{n(), B, 1, 3};
  const Values w = random(shape, sums()), m = random(shape, sums()), g = random(shape, sums());
  Values v = random(shape, sums());
  for (double& x : v.data) x = std::fabs(x);
  const AdamStep step{.rate = 0.1,
                      .decay = 0.25,
                      .gradient_factor = 0.5,
                      .beta1 = 0.75,
                      .beta2 = 0.5,
                      .epsilon = 1e-3,
                      .first_bias = 0.5,
                      .second_bias = 0.75};
  const Tensor parameter = put(w, sums()), first = put(m, sums()), second = put(v, sums());
  const Tensor gradient = put(g, sums()), squares = zeros({1, 1, 1, 1});
  dense_.add_squares(squares, gradient);
  dense_.adamw(parameter, first, second, gradient, step);
  std::vector<double> new_w, new_m, new_v;
  double sum = 0;
  for (std::size_t i = 0; i < w.data.size(); ++i) {
    const double d = g.data[i] / 2;
    sum += g.data[i] * g.data[i];
    new_m.push_back(0.75 * m.data[i] + 0.25 * d);
    new_v.push_back(0.5 * v.data[i] + 0.5 * d * d);
    const double upward = new_m.back() / 0.5, size = std::sqrt(new_v.back() / 0.75);
    new_w.push_back(w.data[i] - 0.1 * (upward / (size + 1e-3) + 0.25 * w.data[i]));
  }
  expect_near(squares, {sum}, "squares");
  expect_near(first, new_m, "first");
  expect_near(second, new_v, "second");
  expect_near(parameter, new_w, "parameter");
}

TEST_P(DenseKernelsTest, CountsTheFlopsOfProducts) {
  const Tensor x = put(random({n(), B, 1, 3}, dtype()), dtype());
  const Tensor w = put(random({5, 1, 1, 3}, dtype()), dtype());
  const Tensor y = poisoned({n(), B, 1, 5}, dtype());
  dense_.product(y, x, w, {});
  EXPECT_EQ(dense_.flops(), 2 * n() * B * 3 * 5);
  dense_.product_d_x(zeros(x.shape()), y, w);
  dense_.product_d_weight(zeros(w.shape()), {}, y, x);
  EXPECT_EQ(dense_.flops(), 6 * n() * B * 3 * 5);
}

std::vector<DenseCase> dense_cases() {
  std::vector<DenseCase> cases;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
    for (const std::int64_t n : {0, 1, 7, 150}) cases.push_back({dtype, n});
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Kernels, DenseKernelsTest, testing::ValuesIn(dense_cases()),
                         [](const auto& tested) {
                           return fmt::format("{}_{}", name_of(tested.param.dtype), tested.param.n);
                         });

}  // namespace
}  // namespace sp::test
