// Bytes, messages and flops of linear attention as the papers print them, with their errata.
//
// Formulas in the papers' letters, on lengths that divide: c = N/P tokens per rank, h = H D,
// hkv = G D, e bytes per element of the storage type; states are f32. S is the number of scalars in
// the states of all heads: features times columns, per head that has a state of its own.
// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

struct Sizes {
  Module module;
  Problem problem;
  World world;
  std::int64_t B, P, c, H, D, h, hkv, e, S;
};

Cost cost_of(const char* id, const Problem& problem, const World& world, int rank) {
  const Algorithm& algorithm = *find_algorithm(id);
  EXPECT_TRUE(algorithm.supports(problem, world)) << id;
  return algorithm.cost(problem, Layout(algorithm.sharding, problem.shape.N, world.size), world,
                        rank);
}
std::int64_t bytes(const char* id, const Sizes& s, int rank, bool backward) {
  const Cost cost = cost_of(id, s.problem, s.world, rank);
  return backward ? cost.backward.bytes_sent : cost.forward.bytes_sent;
}

std::int64_t scalars(Module module, std::int64_t B, std::int64_t H, std::int64_t G, std::int64_t D,
                     std::int64_t E) {
  switch (module) {
    case Module::kBasic:
      return B * G * D * E;  // keys and values share their state among the queries of a group
    case Module::kLightning:
    case Module::kRetention:
    case Module::kGla:
      return B * H * D * E;  // decays belong to query heads
    case Module::kBased:
      return B * G * (1 + D + D * (D + 1) / 2) * (E + 1);
    case Module::kRebased:
      return B * G * (D * (D + 1) / 2) * (E + 1);
  }
  return 0;
}

template <class F>
void for_all_sizes(std::initializer_list<Module> modules, F&& expect) {
  constexpr std::int64_t kD = 16, kE = 12, kB = 2, kH = 32;
  for (const Module module : modules) {
    for (const int P : {2, 4, 8}) {
      for (const std::int64_t G : {32, 8}) {  // multi-head, grouped
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          Problem problem =
              problem_for({find_algorithm("lasp2"), module}, {kB, 12 * P, kH, G, kD, kE});
          problem.dtype = dtype;
          const Sizes s{module,
                        problem,
                        {P, P / 2},
                        kB,
                        P,
                        12,
                        kH,
                        kD,
                        kH * kD,
                        G * kD,
                        static_cast<std::int64_t>(size_of(dtype)),
                        scalars(module, kB, kH, G, kD, kE)};
          for (int rank = 0; rank < P; ++rank) {
            SCOPED_TRACE(describe(problem) + " rank " + std::to_string(rank) + " of " +
                         std::to_string(P));
            expect(s, rank);
          }
        }
      }
    }
  }
}

constexpr std::initializer_list<Module> kAll{Module::kBasic, Module::kLightning, Module::kRetention,
                                             Module::kGla,   Module::kBased,     Module::kRebased};
constexpr std::initializer_list<Module> kConstant{Module::kBasic, Module::kLightning,
                                                  Module::kRetention};

TEST(LinearCost, OfLasp2IsAllOtherRanksStates) {
  for_all_sizes(kAll, [](const Sizes& s, int rank) {
    // A gate's decay of the chunk goes with the state, as a logarithm per channel.
    const std::int64_t decays = s.module == Module::kGla ? s.B * s.H * s.D : 0;
    EXPECT_EQ(bytes("lasp2", s, rank, false), (s.P - 1) * (s.S + decays) * 4);
    EXPECT_EQ(bytes("lasp2", s, rank, true), (s.P - 1) * s.S * 4);
    const Cost cost = cost_of("lasp2", s.problem, s.world, rank);
    EXPECT_EQ(cost.forward.messages_sent, s.P - 1);
    EXPECT_EQ(cost.backward.messages_sent, s.P - 1);
  });
}

TEST(LinearCost, OfLasp1IsOneStateFromEveryRankButTheLast) {
  for_all_sizes(kAll, [](const Sizes& s, int rank) {
    for (const char* id : {"lasp1", "lasp1_released", "zeco"}) {
      SCOPED_TRACE(id);
      EXPECT_EQ(bytes(id, s, rank, false), rank + 1 < s.P ? s.S * 4 : 0);
      EXPECT_EQ(bytes(id, s, rank, true), rank > 0 ? s.S * 4 : 0);
    }
  });
}

// Erratum: arXiv:2502.07563 says that LASP-2 reduces the traffic by W-1. An all-gather delivers W-1
// states to every rank: a rank moves W-1 times as much as in LASP-1, and the group W times.
TEST(LinearCost, OfLasp2IsNotSmallerByTheRanksButLarger) {
  for_all_sizes({Module::kBasic, Module::kLightning, Module::kBased}, [](const Sizes& s, int rank) {
    if (rank + 1 < s.P) {
      EXPECT_EQ(bytes("lasp2", s, rank, false), (s.P - 1) * bytes("lasp1", s, rank, false));
    }
    for (const bool backward : {false, true}) {
      std::int64_t lasp1 = 0, lasp2 = 0;
      for (int each = 0; each < s.P; ++each) {
        lasp1 += bytes("lasp1", s, each, backward);
        lasp2 += bytes("lasp2", s, each, backward);
      }
      EXPECT_EQ(lasp2, s.P * lasp1);
    }
  });
}

TEST(LinearCost, OfRingsIsThatOfRingAttention) {
  for_all_sizes(kConstant, [](const Sizes& s, int rank) {
    Problem softmax = s.problem;
    softmax.module.reset();
    for (const bool causal : {true, false}) {
      Problem linear = s.problem;
      linear.mask.causal = softmax.mask.causal = causal;
      const Cost mine = cost_of("ring_linear", linear, s.world, rank);
      const Cost theirs = cost_of("ring/contiguous", softmax, s.world, rank);
      EXPECT_EQ(mine.forward.bytes_sent, theirs.forward.bytes_sent);
      EXPECT_EQ(mine.backward.bytes_sent, theirs.backward.bytes_sent);
      EXPECT_EQ(mine.forward.messages_sent, theirs.forward.messages_sent);
      EXPECT_EQ(mine.forward.flops, theirs.forward.flops);
      EXPECT_EQ(mine.backward.flops, theirs.backward.flops);
    }
  });
}

TEST(LinearCost, OfTheRingWithTheRightProductIsKeysForwardAndQueriesBackward) {
  for_all_sizes(kConstant, [](const Sizes& s, int rank) {
    const std::int64_t E = s.problem.shape.E, G = s.problem.shape.G;
    EXPECT_EQ(bytes("ring_linear_right", s, rank, false),
              s.B * (s.P - 1) * s.c * G * (s.D + E) * s.e);
    EXPECT_EQ(bytes("ring_linear_right", s, rank, true),
              s.B * (s.P - 1) * s.c * s.H * (s.D + E) * s.e);
  });
}

// Q, K, V are gathered and sums in f32 scattered; backward d_out is gathered too.
TEST(LinearCost, OfMegatronIsTheWholeSequence) {
  for_all_sizes(kConstant, [](const Sizes& s, int rank) {
    const std::int64_t E = s.problem.shape.E, G = s.problem.shape.G;
    const std::int64_t q = s.h, kv = G * (s.D + E), out = s.H * E;
    EXPECT_EQ(bytes("megatron_sp_linear", s, rank, false),
              s.B * (s.P - 1) * s.c * ((q + kv) * s.e + out * 4));
    EXPECT_EQ(bytes("megatron_sp_linear", s, rank, true),
              s.B * (s.P - 1) * s.c * ((q + kv + out) * s.e + (q + kv) * 4));
  });
}

TEST(LinearCost, WorkIsLinearInTheLengthWithStatesAndQuadraticWithoutThem) {
  const World world{8, 4};
  const auto flops = [&](const char* id, std::int64_t N, bool causal) {
    Problem problem = problem_for({find_algorithm(id), Module::kBasic}, {1, N, 4, 4, 16, 16});
    problem.mask.causal = causal;
    std::int64_t sum = 0;
    for (int rank = 0; rank < world.size; ++rank) {
      const Cost cost = cost_of(id, problem, world, rank);
      sum += cost.forward.flops + cost.backward.flops;
    }
    return sum;
  };
  const std::int64_t N = 8 * 64;  // whole sub-chunks
  for (const char* id : {"lasp2", "lasp1", "lasp1_released", "zeco", "ring_linear_right"})
    EXPECT_EQ(flops(id, 100 * N, true), 100 * flops(id, N, true)) << id;
  for (const char* id : {"ring_linear", "megatron_sp_linear"}) {
    EXPECT_EQ(flops(id, 100 * N, false), 10'000 * flops(id, N, false)) << id;
    EXPECT_GT(flops(id, 100 * N, true), 9'900 * flops(id, N, true)) << id;  // less the diagonal
  }
}

// Linear-Llama3-1B: 16 layers of 16 heads of 128, 2048K tokens.
Problem one_billion(Module module, std::int64_t D = 128) {
  Problem problem =
      problem_for({find_algorithm("lasp2"), module}, {1, 2048 * 1024, 16, 16, D, 128});
  problem.dtype = DType::kBF16;
  return problem;
}
double forward_bytes(const char* id, const Problem& problem, int P) {
  return static_cast<double>(cost_of(id, problem, {P, 1}, 0).forward.bytes_sent);
}

// Erratum: the paper has a state of d x d for d = 2048; a head has 128 x 128, 256 times less.
TEST(LinearCost, OfTheOneBillionModelIsAMebibytePerState) {
  const Problem problem = one_billion(Module::kBasic);
  EXPECT_EQ(forward_bytes("lasp1", problem, 64), 0x1p20);
  EXPECT_EQ(forward_bytes("lasp2", problem, 64), 63 * 0x1p20);
  EXPECT_NEAR(forward_bytes("lasp2", problem, 64) / 1e6, 66.06, 0.005);
  EXPECT_NEAR(forward_bytes("ring_linear", problem, 64) / 1e9, 16.9, 0.05);
  Problem softmax = one_billion(Module::kBasic);  // 8 of 32 heads of 64
  softmax.shape = {1, 2048 * 1024, 32, 8, 64, 64};
  softmax.layers = "N";
  EXPECT_NEAR(forward_bytes("lasp2h", softmax, 64) / 1e9, 4.2, 0.05);
}

TEST(LinearCost, OfAnIterationOfTheOneBillionModel) {
  Problem model = one_billion(Module::kBasic);
  model.layers = std::string(16, 'L');
  const double gigabytes[] = {0.50, 1.04, 2.11, 4.26};
  for (int n = 0; n < 4; ++n) {
    const int P = 16 << n;
    const Cost cost = cost_of("lasp2h", model, {P, 1}, 0);
    EXPECT_NEAR(static_cast<double>(cost.forward.bytes_sent + cost.backward.bytes_sent) / 1e9,
                gigabytes[n], 0.005)
        << P;
  }
}

// Table 5 cuts the state into pieces: more collectives, the same bytes.
TEST(LinearCost, OfSplitGatheringIsMessagesNotBytes) {
  Problem model = one_billion(Module::kBasic);
  model.layers = std::string(16, 'L');
  constexpr std::int64_t kP = 64;
  const std::int64_t bytes = cost_of("lasp2h", model, {kP, 1}, 0).forward.bytes_sent;
  const std::pair<int, std::int64_t> collectives[] = {{1, 32}, {4, 128}, {16, 512}, {64, 2048}};
  for (const auto& [splits, expected] : collectives) {
    const Cost cost = cost_of("lasp2h", model, {kP, 1, splits}, 0);
    EXPECT_EQ(cost.forward.bytes_sent, bytes);
    EXPECT_EQ(cost.backward.bytes_sent, bytes);
    EXPECT_EQ(cost.forward.messages_sent + cost.backward.messages_sent, expected * (kP - 1));
  }
}

TEST(LinearCost, OfMessagesPerModule) {
  const auto mebibytes = [](Module module, std::int64_t D) {
    return forward_bytes("lasp2", one_billion(module, D), 2) / 0x1p20;
  };
  for (const Module module : kConstant) EXPECT_EQ(mebibytes(module, 128), 1.0);
  EXPECT_NEAR(mebibytes(Module::kGla, 128), 1.01, 0.005);
  EXPECT_NEAR(mebibytes(Module::kBased, 16), 1.20, 0.005);
  EXPECT_NEAR(mebibytes(Module::kRebased, 16), 1.07, 0.005);
  // Under a feature map of whole heads.
  EXPECT_NEAR(mebibytes(Module::kBased, 128), 66.02, 0.005);
  EXPECT_NEAR(mebibytes(Module::kRebased, 128), 65.00, 0.005);
}

TEST(LinearCost, OfAStackIsTheSumOfItsLayers) {
  for_all_sizes(kConstant, [](Sizes s, int rank) {
    s.problem.shape.E = s.D;
    s.problem.layers = "LLLNLN";
    s.world.splits = 3;
    const Cost stack = cost_of("lasp2h", s.problem, s.world, rank);
    PassCost forward, backward;
    for (std::int64_t l = 0; l < s.problem.layer_count(); ++l) {
      const Problem layer = layer_of(s.problem, l);
      const Layout layout(Sharding::kContiguous, layer.shape.N, s.world.size);
      const Cost cost =
          find_algorithm(layer.module ? "lasp2" : "allgather")->cost(layer, layout, s.world, rank);
      forward += cost.forward;
      backward += cost.backward;
    }
    for (const auto& [mine, sum] :
         {std::pair{stack.forward, forward}, std::pair{stack.backward, backward}}) {
      EXPECT_EQ(mine.bytes_sent, sum.bytes_sent);
      EXPECT_EQ(mine.messages_sent, sum.messages_sent);
      EXPECT_EQ(mine.flops, sum.flops);
    }
  });
}

}  // namespace
}  // namespace sp::test
