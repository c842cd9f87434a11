// The reference model against the same equations in 113-bit arithmetic: its loss, and every kind of
// gradient against central differences of that loss, whose own error is some 1e-18.
//
// Independent on purpose: forward only, sums over pairs of tokens instead of the attention of the
// reference, decays as products of single steps, features as kernels of inner products.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <quadmath.h>

#include <cmath>
#include <functional>
#include <map>

#include "tests/unit/reference_model_cases.hpp"

namespace sp::test {
namespace {

__extension__ typedef __float128 Quad;
using Index = std::int64_t;

struct Matrix {
  Index rows = 0, columns = 0;
  std::vector<Quad> values = std::vector<Quad>(static_cast<std::size_t>(rows * columns));
  Quad& operator()(Index r, Index c) { return values[static_cast<std::size_t>(r * columns + c)]; }
  const Quad& operator()(Index r, Index c) const {
    return values[static_cast<std::size_t>(r * columns + c)];
  }
};

Quad sigmoid(Quad x) { return 1 / (1 + expq(-x)); }

Matrix mapped(Matrix x, const std::function<Quad(Quad)>& f) {
  for (Quad& value : x.values) value = f(value);
  return x;
}
Matrix silu(const Matrix& x) {
  return mapped(x, [](Quad v) { return v * sigmoid(v); });
}
Matrix together(Matrix x, const Matrix& y, const std::function<Quad(Quad, Quad)>& f) {
  for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] = f(x.values[i], y.values[i]);
  return x;
}
Matrix sum(const Matrix& x, const Matrix& y) { return together(x, y, std::plus<Quad>()); }
Matrix times(const Matrix& x, const Matrix& y) { return together(x, y, std::multiplies<Quad>()); }

class QuadModel {
 public:
  QuadModel(const ModelConfig& config, const reference::ParameterValues& values, const Batch& batch)
      : config_(config), batch_(batch) {
    const std::vector<ParameterInfo> infos = parameters_of(config);
    for (std::size_t p = 0; p < infos.size(); ++p) {
      const auto& shape = infos[p].shape;
      Matrix m{shape.size() == 1 ? 1 : shape[0], shape.back()};
      for (std::size_t i = 0; i < values[p].size(); ++i) m.values[i] = values[p][i];
      parameters[infos[p].name] = m;
    }
  }

  Quad loss() const {
    Matrix x{batch_.B * batch_.N, config_.width};
    for (Index t = 0; t < x.rows; ++t) {
      const auto i = static_cast<std::size_t>(t);
      const bool vision = !batch_.is_vision.empty() && batch_.is_vision[i] != 0;
      const Matrix& table = parameters.at(vision ? "vision_embedding" : "embedding");
      for (Index c = 0; c < x.columns; ++c) {
        x(t, c) = table(batch_.tokens[i], c);
        if (config_.positions == Positions::kLearned)
          x(t, c) += parameters.at("positions")(t % batch_.N, c);
        if (config_.token_types > 0) x(t, c) += parameters.at("types")(batch_.types[i], c);
      }
    }
    for (std::size_t l = 0; l < config_.layers.size(); ++l) {
      const std::string name = fmt::format("layers.{}.", l);
      const Matrix normed = norm(x, name + "attention_norm");
      x = sum(x, config_.layers[l] == 'L' ? linear(normed, name + "attention.")
                                          : softmax(normed, name + "attention."));
      x = sum(x, feed_forward(norm(x, name + "feed_forward_norm"), name + "feed_forward."));
    }
    x = norm(x, "norm");
    Quad result = 0;
    for (Index t = 0; t < x.rows; ++t) {
      const auto i = static_cast<std::size_t>(t);
      const bool vision = !batch_.target_is_vision.empty() && batch_.target_is_vision[i] != 0;
      const char* head = vision ? "vision_head" : config_.tied_embedding ? "embedding" : "head";
      result += Quad(batch_.weights[i]) * surprise(row(x, t), head, batch_.targets[i]);
    }
    for (Index b = 0; config_.sentence_head && b < batch_.B; ++b) {
      const Matrix pooled = mapped(projected(row(x, b * batch_.N), "pool"), tanhq);
      result += Quad(batch_.sentence_weights[static_cast<std::size_t>(b)]) *
                surprise(pooled, "sentence", batch_.sentence_targets[static_cast<std::size_t>(b)]);
    }
    return result;
  }

  std::map<std::string, Matrix> parameters;

 private:
  static Matrix row(const Matrix& x, Index t) {
    Matrix r{1, x.columns};
    for (Index c = 0; c < x.columns; ++c) r(0, c) = x(t, c);
    return r;
  }
  Matrix projected(const Matrix& x, const std::string& name) const {
    const Matrix& w = parameters.at(name);
    const auto bias = parameters.find(name + ".bias");
    Matrix y{x.rows, w.rows};
    for (Index t = 0; t < x.rows; ++t) {
      for (Index o = 0; o < w.rows; ++o) {
        if (bias != parameters.end()) y(t, o) = bias->second(0, o);
        for (Index c = 0; c < x.columns; ++c) y(t, o) += x(t, c) * w(o, c);
      }
    }
    return y;
  }
  // -log softmax(x headT)[target]
  Quad surprise(const Matrix& x, const std::string& head, Index target) const {
    const Matrix logits = projected(x, head);
    Quad total = 0;
    for (const Quad& logit : logits.values) total += expq(logit);
    return logq(total) - logits(0, target);
  }
  // Over runs of `size`: centred or not, to unit variance or unit mean square.
  static Matrix normalised(Matrix x, Index size, bool centred, Quad epsilon) {
    for (std::size_t begin = 0; begin < x.values.size(); begin += static_cast<std::size_t>(size)) {
      Quad mean = 0, square = 0;
      for (Index c = 0; c < size; ++c) mean += x.values[begin + static_cast<std::size_t>(c)] / size;
      if (!centred) mean = 0;
      for (Index c = 0; c < size; ++c) {
        Quad& value = x.values[begin + static_cast<std::size_t>(c)];
        value -= mean;
        square += value * value / size;
      }
      for (Index c = 0; c < size; ++c)
        x.values[begin + static_cast<std::size_t>(c)] /= sqrtq(square + epsilon);
    }
    return x;
  }
  Matrix norm(const Matrix& x, const std::string& name) const {
    const bool centred = config_.norm == Norm::kLayer;
    Matrix y = normalised(x, x.columns, centred, config_.norm_epsilon);
    for (Index t = 0; t < y.rows; ++t) {
      for (Index c = 0; c < y.columns; ++c) {
        y(t, c) *= parameters.at(name + ".gain")(0, c);
        if (centred) y(t, c) += parameters.at(name + ".bias")(0, c);
      }
    }
    return y;
  }
  Matrix feed_forward(const Matrix& x, const std::string& name) const {
    Matrix up = projected(x, name + "up");
    if (config_.feed_forward == FeedForward::kSwiGlu)
      return projected(times(silu(projected(x, name + "gate")), up), name + "down");
    up = mapped(up, [](Quad v) { return v / 2 * (1 + erfq(v / sqrtq(2))); });
    return projected(up, name + "down");
  }

  bool sees(Index b, Index query, Index key, Index window) const {
    if (config_.causal && key > query) return false;
    if (window > 0 && std::abs(query - key) >= window) return false;
    if (batch_.segment_ids.empty()) return true;
    return batch_.segment_ids[static_cast<std::size_t>(b * batch_.N + query)] ==
           batch_.segment_ids[static_cast<std::size_t>(b * batch_.N + key)];
  }
  // out = sum over keys of weight v, over the sum of weights if that is wanted.
  Matrix attend(const Matrix& v, Index heads, Index kv_heads, Index window, bool normalises,
                Quad epsilon, const std::function<Quad(Index, Index, Index, Index)>& weight) const {
    const Index size = v.columns / kv_heads, N = batch_.N;
    Matrix out{v.rows, heads * size};
    for (Index b = 0; b < batch_.B; ++b) {
      for (Index h = 0; h < heads; ++h) {
        for (Index i = 0; i < N; ++i) {
          Quad total = 0;
          std::vector<Quad> sums(static_cast<std::size_t>(size));
          for (Index j = 0; j < N; ++j) {
            if (!sees(b, i, j, window)) continue;
            const Quad w = weight(b, h, i, j);
            total += w;
            for (Index e = 0; e < size; ++e)
              sums[static_cast<std::size_t>(e)] +=
                  w * v(b * N + j, h / (heads / kv_heads) * size + e);
          }
          for (Index e = 0; e < size; ++e)
            out(b * N + i, h * size + e) =
                sums[static_cast<std::size_t>(e)] / (normalises ? total + epsilon : Quad(1));
        }
      }
    }
    return out;
  }

  Matrix turned(Matrix x) const {
    const Index size = config_.head_size, half = size / 2;
    for (Index t = 0; t < x.rows; ++t) {
      for (Index at = 0; at < x.columns; ++at) {
        const Index c = at % size;
        if (c >= half) continue;
        const Quad angle = Quad(t % batch_.N) / powq(config_.rotary_base, Quad(2 * c) / size);
        const Quad a = x(t, at), b = x(t, at + half);
        x(t, at) = a * cosq(angle) - b * sinq(angle);
        x(t, at + half) = b * cosq(angle) + a * sinq(angle);
      }
    }
    return x;
  }

  Matrix softmax(const Matrix& x, const std::string& name) const {
    Matrix q = projected(x, name + "query"), k = projected(x, name + "key");
    if (config_.positions == Positions::kRotary) q = turned(q), k = turned(k);
    const Index D = config_.head_size, group = config_.heads / config_.kv_heads;
    const auto weight = [&](Index b, Index h, Index i, Index j) {
      Quad score = 0;
      for (Index c = 0; c < D; ++c)
        score += q(b * batch_.N + i, h * D + c) * k(b * batch_.N + j, h / group * D + c);
      return expq(score / sqrtq(D));
    };
    return projected(attend(projected(x, name + "value"), config_.heads, config_.kv_heads,
                            config_.window, true, 0, weight),
                     name + "output");
  }

  Matrix linear(const Matrix& x, const std::string& name) const {
    const Module module = config_.module;
    const bool normalises = module == Module::kBased || module == Module::kRebased;
    Matrix q = projected(x, name + "query"), k = projected(x, name + "key");
    if (config_.key_activation && !normalises) q = silu(q), k = silu(k);
    const Index D = config_.key_size, H = config_.heads;
    if (module == Module::kRebased) {
      for (Matrix* m : {&q, &k}) {
        *m = normalised(*m, D, true, 1e-6);
        for (Index t = 0; t < m->rows; ++t)
          for (Index c = 0; c < m->columns; ++c)
            (*m)(t, c) = (*m)(t, c) * parameters.at(name + "gamma")(0, c % D) +
                         parameters.at(name + "beta")(0, c % D);
      }
    }
    Matrix logits;
    if (module == Module::kGla)
      logits = projected(projected(x, name + "decay_down"), name + "decay_up");
    // What one step of a token leaves of a state's channel.
    const auto kept = [&](Index b, Index h, Index token, Index c) -> Quad {
      if (module == Module::kLightning) return expq(-powq(2, Quad(-8 * (h + 1)) / H));
      if (module == Module::kRetention) return 1 - powq(2, -5 - h);
      if (module == Module::kGla)
        return powq(sigmoid(logits(b * batch_.N + token, h * D + c)), Quad(1) / 16);
      return 1;
    };
    const auto weight = [&](Index b, Index h, Index i, Index j) {
      Quad score = 0;
      for (Index c = 0; c < D; ++c) {
        Quad term = q(b * batch_.N + i, h * D + c) * k(b * batch_.N + j, h * D + c);
        for (Index step = j + 1; step <= i; ++step) term *= kept(b, h, step, c);
        score += term;
      }
      if (module == Module::kBased) {
        score /= sqrtq(D);
        return 1 + score + score * score / 2;
      }
      if (module == Module::kRebased) return score * score / D;
      return module == Module::kLightning ? score : score / sqrtq(D);
    };
    const Quad epsilon = module == Module::kBased ? 1e-10 : 1e-5;
    Matrix out = attend(projected(x, name + "value"), H, H, 0, normalises, epsilon, weight);
    if (!normalises) {
      out = normalised(out, config_.head_size, false, config_.norm_epsilon);
      for (Index t = 0; t < out.rows; ++t)
        for (Index c = 0; c < out.columns; ++c)
          out(t, c) *= parameters.at(name + "head_gain")(0, c % config_.head_size);
    }
    return projected(times(out, silu(projected(x, name + "gate"))), name + "output");
  }

  const ModelConfig& config_;
  const Batch& batch_;
};

class ReferenceModel : public testing::TestWithParam<ModelCase> {};

TEST_P(ReferenceModel, LossAndGradientsAreThoseOfQuadruplePrecision) {
  const ModelCase& c = GetParam();
  const reference::ParameterValues values = parameters_for(c);
  const reference::ModelResult actual = reference::evaluate_model(c.config, values, c.batch);
  QuadModel model(c.config, values, c.batch);
  const auto loss = static_cast<double>(model.loss());
  EXPECT_NEAR(actual.loss, loss, 1e-14 * loss);

  const std::vector<ParameterInfo> infos = parameters_of(c.config);
  const auto largest_of = [](const reference::Values& gradient) {
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::fabs(g));
    return largest;
  };
  double overall = 0;  // sums may cancel: a bias of keys changes no probability
  for (const reference::Values& gradient : actual.gradients)
    overall = std::max(overall, largest_of(gradient));
  const Quad h = scalbnq(1, -32);
  for (std::size_t p = 0; p < infos.size(); ++p) {
    Matrix& m = model.parameters.at(infos[p].name);
    const double scale = largest_of(actual.gradients[p]) + 0.01 * overall;
    constexpr std::size_t kTried = 3;
    const std::size_t step = std::max<std::size_t>(1, m.values.size() / kTried);
    for (std::size_t i = 0; i < m.values.size(); i += step) {
      const Quad before = m.values[i];
      m.values[i] = before + h;
      const Quad up = model.loss();
      m.values[i] = before - h;
      const Quad down = model.loss();
      m.values[i] = before;
      EXPECT_NEAR(actual.gradients[p][i], static_cast<double>((up - down) / (2 * h)),
                  1e-13 * scale)  // the sums of Rebased cancel
          << infos[p].name << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Model, ReferenceModel, testing::ValuesIn(model_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
