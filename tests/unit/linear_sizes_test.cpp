// Sizes of linear attention: those of sweeps are those of plain loops over pairs, and errors of real runs keep to them.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/linear_sizes.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "harness/compare/likeness.hpp"
#include "harness/compare/oracle.hpp"
#include "harness/generate/cases.hpp"
#include "harness/run/execute.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/evaluate.hpp"
#include "reference/linear_attention.hpp"

namespace sp::test {
namespace {

using std::int64_t;

constexpr HostTensor Outputs::* kStored[] = {&Outputs::out, &Outputs::d_q, &Outputs::d_k,
                                             &Outputs::d_v};
constexpr Module kWithout[] = {Module::kBasic, Module::kLightning, Module::kRetention,
                               Module::kGla};  // a normaliser

// The definition in linear_sizes.hpp, one element and one direction at a time.
class PlainSizes {
 public:
  PlainSizes(const Problem& problem, const Inputs& inputs)
      : problem_(problem),
        s_(problem.shape),
        inputs_(inputs),
        decay_(decay_of(*problem.module)),
        w_(unit_roundoff(accumulator_of(problem.dtype))) {}

  Outputs run(const Outputs& exact) {
    for (Outputs* parts : {&squares_, &sums_, &alive_}) {
      for (const auto x : kStored) parts->*x = HostTensor(DType::kF64, (exact.*x).shape());
      parts->d_log_decay = exact.d_log_decay.absent()
                               ? HostTensor()
                               : HostTensor(DType::kF64, exact.d_log_decay.shape());
    }
    for (int64_t b = 0; b < s_.B; ++b)
      for (int64_t h = 0; h < s_.H; ++h)
        for (const bool own : {true, false})
          if (own || !problem_.mask.causal) one_way(b, h, own);
    Outputs sizes = squares_;
    for (const auto x : kStored)
      for (int64_t i = 0; i < (sizes.*x).size(); ++i) {
        const double value = std::max((exact.*x).at(i) * (exact.*x).at(i), (sums_.*x).at(i));
        (sizes.*x).set(i, w_ * std::sqrt((squares_.*x).at(i) + (alive_.*x).at(i) / 3 * value));
      }
    for (int64_t i = 0; i < sizes.d_log_decay.size(); ++i)
      sizes.d_log_decay.set(i, w_ * squares_.d_log_decay.at(i));
    return sizes;
  }

 private:
  struct Row {
    int64_t token;
    std::vector<double> x, y;
  };
  struct Sized {
    double value, square, sum, alive;
    double whole() const { return square + alive / 3 * sum; }
  };

  static std::vector<double> row(const HostTensor& tensor, int64_t b, int64_t n, int64_t h) {
    std::vector<double> values;
    const int64_t size = tensor.extent(3);
    for (int64_t c = 0; c < size; ++c)
      values.push_back(tensor.at(((b * tensor.extent(1) + n) * tensor.extent(2) + h) * size + c));
    return values;
  }
  int64_t key_head(int64_t h) const { return h / (s_.H / s_.G); }
  Row queries(int64_t b, int64_t n, int64_t h) const {
    return {n, row(inputs_.q, b, n, h), row(inputs_.d_out, b, n, h)};
  }
  Row keys(int64_t b, int64_t n, int64_t h) const {
    return {n, row(inputs_.k, b, n, key_head(h)), row(inputs_.v, b, n, key_head(h))};
  }

  bool joined(int64_t b, int64_t a, int64_t z) const {
    const auto& ids = problem_.mask.segment_ids;
    for (int64_t n = std::min(a, z) + 1; n <= std::max(a, z) && !ids.empty(); ++n)
      if (ids[static_cast<std::size_t>(b * s_.N + n)] !=
          ids[static_cast<std::size_t>(b * s_.N + n - 1)])
        return false;
    return true;
  }
  double log_decay(int64_t b, int64_t h, int64_t n, int64_t c) const {
    if (decay_ == Decay::kNone) return 0;
    if (decay_ == Decay::kPerHead) return inputs_.log_decay.at(h);
    return inputs_.log_decay.at(((b * s_.N + n) * s_.H + h) * s_.D + c);
  }
  double log_between(int64_t b, int64_t h, int64_t a, int64_t z, int64_t c) const {
    double sum = 0;
    for (int64_t n = std::min(a, z) + 1; n <= std::max(a, z); ++n) sum += log_decay(b, h, n, c);
    return sum;
  }
  // What the slowest channel loses.
  double log_of_slowest(int64_t b, int64_t h, int64_t a, int64_t z) const {
    double sum = 0;
    for (int64_t n = std::min(a, z) + 1; n <= std::max(a, z); ++n) {
      double slowest = -1e300;
      for (int64_t c = 0; c < s_.D; ++c) slowest = std::max(slowest, log_decay(b, h, n, c));
      sum += slowest;
    }
    return sum;
  }
  // In f64 the factors themselves are rounded.
  double exponent_between(int64_t b, int64_t h, int64_t a, int64_t z, int64_t c) const {
    double sum = 0;
    for (int64_t n = std::min(a, z) + 1; n <= std::max(a, z); ++n) {
      const double log = log_decay(b, h, n, c);
      sum += std::fabs(log) + (problem_.dtype == DType::kF64 && log != 0 ? 1 : 0);
    }
    return sum;
  }

  // The column or row of the state of added[0, count) that a reader meets, as it is at `token`.
  std::vector<double> state_at(int64_t b, int64_t h, const std::vector<Row>& added,
                               std::size_t count, int64_t token, bool column,
                               int64_t element) const {
    std::vector<double> state(static_cast<std::size_t>(column ? s_.D : s_.E));
    for (std::size_t n = 0; n < count; ++n)
      for (std::size_t i = 0; i < state.size(); ++i) {
        const std::size_t c = column ? i : static_cast<std::size_t>(element);
        const std::size_t e = column ? static_cast<std::size_t>(element) : i;
        state[i] += std::exp(log_between(b, h, added[n].token, token, static_cast<int64_t>(c))) *
                    added[n].x[c] * added[n].y[e];
      }
    return state;
  }

  // What is read where that was highest, of every 32nd.
  double highest(int64_t b, int64_t h, const std::vector<Row>& added, const Row& reader,
                 bool column, int64_t element) const {
    std::size_t best = 0;
    const auto norm = [&](std::size_t count, int64_t token) {
      double sum = 0;
      for (const double x : state_at(b, h, added, count, token, column, element)) sum += x * x;
      return sum;
    };
    for (std::size_t count = 32; count <= added.size(); count += 32) {
      const int64_t token = added[count - 1].token;
      if (norm(count, token) > norm(best, token)) best = count;
    }
    const auto state = state_at(b, h, added, best, reader.token, column, element);
    double sum = 0;
    for (std::size_t i = 0; i < state.size(); ++i)
      sum += state[i] * (column ? reader.x : reader.y)[i];
    return sum;
  }

  // How much larger the whole of what is read is than if no two of its products had anything in common.
  double alike(int64_t b, int64_t h, const std::vector<Row>& added, const Row& reader,
               bool column) const {
    double together = 0, apart = 0;
    for (int64_t element = 0; element < (column ? s_.E : s_.D); ++element) {
      const auto state = state_at(b, h, added, added.size(), reader.token, column, element);
      double value = 0;
      for (std::size_t i = 0; i < state.size(); ++i) {
        const double product = state[i] * (column ? reader.x : reader.y)[i];
        value += product;
        apart += product * product;
      }
      together += value * value;
    }
    return apart > 0 ? std::max(1.0, together / apart) : 1;
  }

  // What `reader` reads of `added`, in the order of addition: of columns e, reading with x, or of rows c, with y.
  Sized read(int64_t b, int64_t h, const std::vector<Row>& added, const Row& reader, bool columns,
             int64_t element, double sharers = 1) const {
    const std::vector<double>& by = columns ? reader.x : reader.y;
    double norm = 0, products = 0, value = 0, common = 0, square = 0, alive = 0, terms = 0;
    for (const double x : by) norm += x * x;
    for (const Row& a : added)
      alive += log_of_slowest(b, h, a.token, reader.token) >= std::log(w_) ? 1 : 0;
    for (std::size_t i = 0; i < by.size(); ++i) {
      const int64_t c = columns ? static_cast<int64_t>(i) : element;
      double state = 0, roundings = 0, exponents = 0, exponent = 0;
      for (std::size_t n = 0; n < added.size(); ++n) {
        const Row& a = added[n];
        const double log = log_between(b, h, a.token, reader.token, c);
        const double l = exponent_between(b, h, a.token, reader.token, c);
        const double term = std::exp(log) * a.x[static_cast<std::size_t>(c)] *
                            a.y[columns ? static_cast<std::size_t>(element) : i];
        state += term;
        roundings += sharers * state * state;
        products += term * term;
        terms += by[i] * by[i] * term * term;
        exponents += l * l * term * term;
        exponent += l * term;
        const bool last = n + 1 == added.size() || added[n + 1].token != a.token;
        if (!last || a.token == reader.token) continue;
        const int64_t border = a.token < reader.token ? a.token + 1 : a.token;
        if (log_decay(b, h, border, c) != 0) roundings += 2 * state * state;
      }
      value += by[i] * state;
      common += by[i] * exponent;
      square += by[i] * by[i] *
                (roundings / 3 + static_cast<double>(by.size()) / 3 * state * state + exponents +
                 exponent * exponent);
    }
    const double scale = problem_.scale;
    const double high = highest(b, h, added, reader, columns, element);
    double most = std::max(value * value, high * high);
    if (decay_ != Decay::kNone) most = std::max(most, terms * alike(b, h, added, reader, columns));
    return {scale * value, scale * scale * (square + norm * products + common * common),
            scale * scale * most, alive};
  }

  static void add(HostTensor& tensor, int64_t i, double value) {
    tensor.set(i, tensor.at(i) + value);
  }
  void add(HostTensor Outputs::* x, int64_t i, const Sized& part) {
    add(squares_.*x, i, part.square);
    add(sums_.*x, i, part.sum);
    add(alive_.*x, i, part.alive);
  }

  // What a token sees of the keys before it (and itself), or of the queries after it (and itself); or not own: the other
  // way round, without itself.
  void one_way(int64_t b, int64_t h, bool own) {
    const bool shared = decay_ == Decay::kNone;  // one state for the queries of all heads of a key
    const double sharers = shared ? static_cast<double>(s_.H / s_.G) : 1;
    std::vector<double> term_sizes(static_cast<std::size_t>(s_.N * s_.D)), terms(term_sizes);
    const auto take = [&](int64_t n, int64_t c, double x, const Sized& sized, double sign) {
      const auto i = static_cast<std::size_t>(n * s_.D + c);
      term_sizes[i] += std::fabs(x) * std::sqrt(sized.whole()) + std::fabs(x * sized.value);
      terms[i] += sign * x * sized.value;
    };
    for (int64_t n = 0; n < s_.N; ++n) {
      std::vector<Row> before, after;
      for (int64_t m = 0; m < s_.N; ++m) {
        const int64_t back = s_.N - 1 - m;
        if (joined(b, m, n) && (own ? m <= n : false)) before.push_back(keys(b, m, h));
        if (joined(b, back, n) && !own && back > n) before.push_back(keys(b, back, h));
        const int64_t later = own ? back : m;
        if (!joined(b, later, n) || (own ? later < n : later >= n)) continue;
        after.push_back(queries(b, later, h));
      }
      const Row query = queries(b, n, h), key = keys(b, n, h);
      const int64_t q = (b * s_.N + n) * s_.H + h, k = (b * s_.N + n) * s_.G + key_head(h);
      for (int64_t e = 0; e < s_.E; ++e) {
        add(&Outputs::out, q * s_.E + e, read(b, h, before, query, true, e));
        add(&Outputs::d_v, k * s_.E + e, read(b, h, after, key, true, e, sharers));
      }
      for (int64_t c = 0; c < s_.D; ++c) {
        const Sized d_q = read(b, h, before, query, false, c),
                    d_k = read(b, h, after, key, false, c, sharers);
        add(&Outputs::d_q, q * s_.D + c, d_q);
        add(&Outputs::d_k, k * s_.D + c, d_k);
        take(n, c, query.x[static_cast<std::size_t>(c)], d_q, 1);
        take(n, c, key.x[static_cast<std::size_t>(c)], d_k, -1);
      }
    }
    if (!shared) decays(b, h, term_sizes, terms);
  }

  void decays(int64_t b, int64_t h, const std::vector<double>& term_sizes,
              const std::vector<double>& terms) {
    const bool per_head = decay_ == Decay::kPerHead;
    for (int64_t n = 0; n < s_.N; ++n) {
      for (int64_t c = 0; c < (per_head ? 1 : s_.D); ++c) {
        double size = 0, sum = 0, squares = 0;
        for (int64_t m = s_.N - 1; m >= n; --m) {
          if (!joined(b, m, n)) continue;
          for (int64_t d = c; d < (per_head ? s_.D : c + 1); ++d) {
            size += term_sizes[static_cast<std::size_t>(m * s_.D + d)];
            sum += terms[static_cast<std::size_t>(m * s_.D + d)];
          }
          squares += sum * sum;
        }
        add(squares_.d_log_decay, per_head ? h : ((b * s_.N + n) * s_.H + h) * s_.D + c,
            size + std::sqrt(squares));
      }
    }
  }

  const Problem& problem_;
  const Shape s_;
  const Inputs& inputs_;
  const Decay decay_;
  const double w_;
  Outputs squares_, sums_, alive_;
};

TEST(LinearSizes, OfSweepsAreThoseOfPlainLoops) {
  int problems = 0;
  for (const Module module : kWithout) {
    Pins pins;
    pins.module = module;
    pins.longest = 0;
    for (std::uint64_t index = 0; index < 80; ++index) {
      find_failure(pins, Family::kLinear, 5, index, 0, [&](const sp::Case& drawn) {
        const Shape& s = drawn.problem.shape;
        if (s.D * s.E * s.B * s.H * s.N > (s.N > 32 ? 1500 : 4000)) return false;
        ++problems;
        const Inputs inputs = make_inputs(drawn);
        const Outputs exact = reference::evaluate(drawn.problem, inputs);
        Outputs plain = PlainSizes(drawn.problem, inputs).run(exact);
        multiply_sizes(plain, likeness(inputs));
        const Outputs swept = linear_sizes(drawn.problem, inputs, exact);
        for (const auto x :
             {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v, &Outputs::d_log_decay}) {
          EXPECT_EQ((plain.*x).shape(), (swept.*x).shape()) << describe(drawn);
          for (int64_t i = 0; i < (plain.*x).size(); ++i)
            EXPECT_NEAR((plain.*x).at(i), (swept.*x).at(i), 1e-12 * (plain.*x).at(i) + 1e-290)
                << describe(drawn);
        }
        return false;
      });
    }
  }
  EXPECT_GE(problems, 40);
}

#ifdef SP_SANITIZED
constexpr int64_t kLong = 700;  // sanitizers look at memory, not at numbers
#else
constexpr int64_t kLong = 2100;
#endif

sp::Case long_case(Module module, int64_t tokens, bool causal = true, bool segments = false) {
  sp::Case drawn;
  Problem& problem = drawn.problem;
  problem.shape = {1, tokens, 2, 1, 16, 16};
  problem.module = module;
  problem.mask.causal = causal;
  for (int64_t n = 0; n < tokens && segments; ++n)
    problem.mask.segment_ids.push_back(static_cast<std::int32_t>(n / 700));
  problem.scale = module == Module::kBasic ? 1 : default_scale(problem.shape);
  drawn.world = {3, 1};
  return drawn;
}

TEST(LinearSizes, OfChosenTokensAreThoseOfAll) {
  for (const Module module : kWithout) {
    for (const bool causal : {true, false}) {
      const sp::Case drawn = long_case(module, 2000, causal, true);
      const Inputs inputs = make_inputs(drawn);
      const std::vector<int64_t> tokens{0, 5, 31, 32, 699, 700, 1999};
      const Outputs all =
          linear_sizes(drawn.problem, inputs, reference::evaluate(drawn.problem, inputs));
      const Outputs some =
          linear_sizes(drawn.problem, inputs,
                       reference::linear_attention_rows(drawn.problem, inputs, tokens), tokens);
      EXPECT_TRUE(some.d_log_decay.absent());
      for (const auto x : kStored) {
        const int64_t row = (all.*x).size() / 2000;
        for (std::size_t t = 0; t < tokens.size(); ++t)
          for (int64_t i = 0; i < row; ++i)
            ASSERT_EQ((all.*x).at(tokens[t] * row + i),
                      (some.*x).at(static_cast<int64_t>(t) * row + i));
      }
    }
  }
}

// How much of the limits a run uses up beyond the last rounding.
double used(const std::string& algorithm, const sp::Case& drawn, const Inputs& inputs) {
  const auto backend = make_thread_backend();
  const Outputs result =
      execute(*backend, {}, *find_algorithm(algorithm), drawn.problem, inputs, drawn.world).outputs;
  const Verdict verdict = Oracle(drawn.problem, inputs, false).judge(result, 1);
  EXPECT_TRUE(verdict.passed()) << algorithm << ' ' << describe(drawn);
  double beyond = 0;
  for (const TensorVerdict& tensor : verdict.tensors) beyond = std::max(beyond, tensor.beyond);
  return beyond;
}

TEST(LinearSizes, HoldErrorsOfLongRunsAndAreNotFarFromThem) {
  for (const Module module : kWithout) {
    for (const char* algorithm : {"lasp2", "lasp1", "zeco", "ring_linear", "megatron_sp_linear"}) {
      const bool left =
          std::string(algorithm) == "ring_linear" || std::string(algorithm) == "megatron_sp_linear";
      if (left && module == Module::kGla) continue;
      for (const Values values : {Values::kNormal, Values::kConstantV, Values::kIdenticalKeys}) {
        sp::Case drawn = long_case(module, kLong);
        drawn.values = values;
        const double beyond = used(algorithm, drawn, make_inputs(drawn));
        EXPECT_LT(beyond, 0.7) << algorithm << ' ' << describe(drawn);
        EXPECT_GT(beyond, 0.02) << algorithm << ' ' << describe(drawn);
      }
    }
  }
}

}  // namespace
}  // namespace sp::test
