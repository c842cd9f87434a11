// Bytes per rank as the papers print them, on lengths that divide.
//
// Every formula is written out in the paper's letters; what a run really sends equals cost(), which
// the equivalence tests assert case by case. c = N/P tokens per rank, h = H D, hkv = G D, e bytes
// per element of the storage type, 4 of f32.
// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

struct Sizes {
  Problem problem;
  World world;
  std::int64_t B, P, c, H, h, hkv, e;
};

std::int64_t bytes(const char* id, const Sizes& s, int rank, bool backward) {
  const Algorithm& algorithm = *find_algorithm(id);
  const Layout layout(algorithm.sharding, s.problem.shape.N, s.world.size);
  const Cost cost = algorithm.cost(s.problem, layout, s.world, rank);
  return backward ? cost.backward.bytes_sent : cost.forward.bytes_sent;
}

// The formulas hold on every rank of every one of these.
template <class F>
void for_all_sizes(F&& expect) {
  constexpr std::int64_t kD = 16, kB = 2;
  for (const int P : {2, 4, 8}) {
    for (const std::int64_t G : {32, 8}) {  // multi-head, grouped
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        Problem problem;
        problem.shape = {kB, 12 * P, 32, G, kD, kD};  // 12: zigzag chunks and their halves divide
        problem.dtype = dtype;
        const Sizes s{problem, {P, P / 2}, kB,
                      P,       12,         32,
                      32 * kD, G * kD,     static_cast<std::int64_t>(size_of(dtype))};
        for (int rank = 0; rank < P; ++rank) {
          SCOPED_TRACE(describe(problem) + " rank " + std::to_string(rank) + " of " +
                       std::to_string(P));
          expect(s, rank);
        }
      }
    }
  }
}

TEST(Cost, OfRingsIsThatOfRingAttention) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    for (const char* id : {"ring/contiguous", "ring/striped", "ring/zigzag",
                           "ring_bidirectional/zigzag", "ring_two_channel/zigzag"}) {
      SCOPED_TRACE(id);
      EXPECT_EQ(bytes(id, s, rank, false), B * 2 * (P - 1) * c * hkv * e);
      EXPECT_EQ(bytes(id, s, rank, true), B * (2 * (P - 1) * c * hkv * e + 2 * P * c * hkv * 4));
    }
  });
}

TEST(Cost, OfRingsIgnoresTheMask) {
  for_all_sizes([](Sizes s, int rank) {
    const std::int64_t all = bytes("ring/zigzag", s, rank, false);
    s.problem.mask = {true, 5, {}};
    EXPECT_EQ(bytes("ring/zigzag", s, rank, false), all);
  });
}

// The paper counts scalars: 2(N-1) BZ(L/N)A forward and 6(N-1) backward, of which 4(N-1) are two
// all-reduces. Those are f32 here, whatever the storage type.
TEST(Cost, OfRsaIsThePapersEightUnits) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    const std::int64_t unit = B * c * hkv;  // BZ(L/N)A
    for (const char* id : {"rsa", "rsa_skip"}) {
      const std::int64_t forward = bytes(id, s, rank, false), backward = bytes(id, s, rank, true);
      EXPECT_EQ(forward, 2 * (P - 1) * unit * e);
      EXPECT_EQ(backward, 2 * (P - 1) * unit * e + 4 * (P - 1) * unit * 4);
      if (e == 4) {
        EXPECT_EQ((forward + backward) / 4, 8 * (P - 1) * unit);
      }
    }
  });
}

TEST(Cost, OfRsaWithLinformerDoesNotDependOnTheLength) {
  for_all_sizes([](Sizes s, int rank) {
    const std::int64_t K = 24;
    s.problem.projected = K;
    const std::int64_t expected = 4 * (s.P - 1) * (s.B * K * s.hkv / s.P) * 4;  // 4(N-1)/N BZKA
    EXPECT_EQ(bytes("rsa_linformer", s, rank, false), expected);
    EXPECT_EQ(bytes("rsa_linformer", s, rank, true), expected);
    s.problem.shape.N *= 10;
    EXPECT_EQ(bytes("rsa_linformer", s, rank, false), expected);
  });
}

TEST(Cost, OfTokenRingWithoutMaskIsQueriesAndReturns) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    for (const char* id : {"token_ring/contiguous", "token_ring/zigzag"}) {
      const std::int64_t queries = (P - 1) * c * h * e;
      const std::int64_t returns = (P - 1) * (c * h * e + 4 * c * H);
      EXPECT_EQ(bytes(id, s, rank, false), B * (queries + returns));
      // Ours, the paper has no backward: q, d_out, lse, delta one way, d_q in f32 the other.
      EXPECT_EQ(bytes(id, s, rank, true),
                B * (P - 1) * (2 * c * h * e + 2 * c * H * 4 + c * h * 4));
    }
  });
}

TEST(Cost, OfTokenRingIsNoLessThanOfRingForMultiHeadAttention) {
  for_all_sizes([](const Sizes& s, int rank) {
    const std::int64_t token_ring = bytes("token_ring/zigzag", s, rank, false);
    const std::int64_t ring = bytes("ring/zigzag", s, rank, false);
    const std::int64_t D = s.problem.shape.D;
    if (s.h == s.hkv) {
      EXPECT_EQ(token_ring * D * s.e, ring * (D * s.e + 2));  // a factor of 1 + 2/(D e)
    } else {
      EXPECT_GT(token_ring, ring * (s.h / s.hkv));  // grouped heads shrink only the ring
    }
  });
}

// Rank r works for the P-1-r owners above it on whole chunks and for the r below on halves; what it
// passes on is what its lower neighbour receives.
TEST(Cost, OfTokenRingZigzagCausalIsTrimmed) {
  for_all_sizes([](Sizes s, int rank) {
    s.problem.mask.causal = true;
    const auto halves = [&](std::int64_t r) { return 2 * (s.P - 1 - r) + r; };  // of chunks
    const std::int64_t queries = halves((rank + s.P - 1) % s.P) * s.c / 2;
    const std::int64_t returns = halves(rank) * s.c / 2;
    EXPECT_EQ(bytes("token_ring/zigzag", s, rank, false),
              s.B * (queries * s.h * s.e + returns * (s.h * s.e + 4 * s.H)));
  });
}

// Queries go down to rank 0 and end there: nobody above the owner has keys that they see.
TEST(Cost, OfTokenRingContiguousCausalEndsAtRankZero) {
  for_all_sizes([](Sizes s, int rank) {
    s.problem.mask.causal = true;
    const std::int64_t queries = rank == 0 ? 0 : s.P - rank, returns = s.P - 1 - rank;
    EXPECT_EQ(bytes("token_ring/contiguous", s, rank, false),
              s.B * s.c * (queries * s.h * s.e + returns * (s.h * s.e + 4 * s.H)));
  });
}

// M nodes of G ranks: K, V take M-1 outer hops, every outer step holds one sweep inside the node.
TEST(Cost, OfTokenRingAcrossNodesIsAnOuterRingOfSweeps) {
  for_all_sizes([](const Sizes& s, int rank) {
    const std::int64_t M = 2, G = s.P / 2;
    const std::int64_t outer = (M - 1) * 2 * s.c * s.hkv * s.e;
    const std::int64_t inner = M * (G - 1) * (2 * s.c * s.h * s.e + 4 * s.c * s.H);
    EXPECT_EQ(bytes("token_ring_hybrid", s, rank, false), s.B * (outer + inner));
  });
}

// 24000 tokens, 32 heads of 128, 4 ranks, 16 bit: c = 6000, h = 4096. MB per rank and forward pass.
TEST(Cost, OfTokenRingsCaseStudyIsWhatItsNumbersAddUpTo) {
  Sizes s{};
  s.problem.shape = {1, 24000, 32, 32, 128, 128};
  s.problem.dtype = DType::kBF16;
  s.world = {4, 1};
  const auto megabytes = [&](const char* id, int rank) {
    return static_cast<double>(bytes(id, s, rank, false)) / 1e6;
  };
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_DOUBLE_EQ(megabytes("ring/zigzag", rank), 294.912);
    EXPECT_DOUBLE_EQ(megabytes("token_ring/contiguous", rank), 297.216);
  }
  s.problem.mask.causal = true;
  constexpr double kMegabytes[] = {223.488, 272.256, 222.720, 173.184};
  constexpr double kQueryChunks[] = {1.5, 3, 2.5, 2}, kReturnChunks[] = {3, 2.5, 2, 1.5};
  constexpr double kChunkSends[] = {4.5, 5.5, 4.5, 3.5};
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_DOUBLE_EQ(megabytes("token_ring/zigzag", rank), kMegabytes[rank]);
    EXPECT_DOUBLE_EQ(kQueryChunks[rank] + kReturnChunks[rank], kChunkSends[rank]);
    const double chunk = 6000 * 4096 * 2 / 1e6, lse = 6000 * 32 * 4 / 1e6;
    EXPECT_DOUBLE_EQ(kChunkSends[rank] * chunk + kReturnChunks[rank] * lse, kMegabytes[rank]);
  }
}

TEST(Cost, OfUlyssesFallsWithTheRanks) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    const std::int64_t expected = B * (2 * h + 2 * hkv) * c * (P - 1) / P * e;
    EXPECT_EQ(bytes("ulysses", s, rank, false), expected);
    EXPECT_EQ(bytes("ulysses", s, rank, true), expected);
  });
}

TEST(Cost, OfMeshAttentionIsThatOfRowsAndColumns) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    const std::int64_t M = 2, U = s.P / 2;
    const std::int64_t keys = 2 * (M - 1) * c * hkv * e;
    EXPECT_EQ(bytes("mesh_attention", s, rank, false),
              B * ((U - 1) * (2 * c * h * e + 4 * c * H) + keys));
    EXPECT_EQ(bytes("mesh_attention", s, rank, true),
              B * ((U - 1) * (2 * c * h * e + 4 * c * h + 8 * c * H) + keys + 2 * M * c * hkv * 4));
  });
}

// A column alone is a ring, a row alone Pass-Q, whatever the length and the mask. Blocks of uneven
// shards pass through other ranks in a ring than in a row: there the ranks agree in sum.
TEST(Cost, OfMeshAttentionAtItsBordersIsThatOfARingAndOfPassQ) {
  using Bytes = std::pair<std::int64_t, std::int64_t>;  // forward, backward
  const auto sent = [](const char* id, const Problem& problem, const World& world) {
    const Algorithm& algorithm = *find_algorithm(id);
    const Layout layout(algorithm.sharding, problem.shape.N, world.size);
    std::vector<Bytes> ranks;
    for (int rank = 0; rank < world.size; ++rank) {
      const Cost cost = algorithm.cost(problem, layout, world, rank);
      ranks.emplace_back(cost.forward.bytes_sent, cost.backward.bytes_sent);
    }
    return ranks;
  };
  const auto sum = [](const std::vector<Bytes>& ranks) {
    Bytes total;
    for (const auto& [forward, backward] : ranks) {
      total.first += forward;
      total.second += backward;
    }
    return total;
  };
  for (const int P : {1, 2, 3, 5, 8}) {
    for (const std::int64_t N : {0, 1, 37, 64, 101, 240}) {
      for (const std::int64_t window : {-1, 0, 9}) {  // -1: no mask at all
        Problem problem;
        problem.shape = {2, N, 4, 2, 8, 8};
        problem.dtype = DType::kBF16;
        problem.mask.causal = window >= 0;
        problem.mask.window = std::max<std::int64_t>(0, window);
        SCOPED_TRACE(describe(problem) + " on " + std::to_string(P));
        const auto column = sent("mesh_attention", problem, {P, 1});
        const auto row = sent("mesh_attention", problem, {P, P});
        const auto pass_q = sent("pass_q", problem, {P, 1});
        EXPECT_EQ(column, sent("ring/zigzag", problem, {P, 1}));
        EXPECT_EQ(sum(row), sum(pass_q));
        if (N % (2 * P) != 0) continue;
        EXPECT_EQ(row, pass_q);
        EXPECT_EQ(sum(column).first, sum(sent("allgather", problem, {P, 1})).first);
      }
    }
  }
}

// M nodes of U ranks: Ulysses inside the node, a ring of M of which each block has 1/U of the heads.
TEST(Cost, OfUspIsUlyssesInsideNodesAndARingBetweenThem) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    const std::int64_t M = 2, U = s.P / 2;
    const std::int64_t inside = (2 * h + 2 * hkv) * c * (U - 1) / U * e;
    const std::int64_t between = 2 * (M - 1) * c * hkv * e;
    for (const char* id : {"usp/contiguous", "usp/zigzag"}) {
      EXPECT_EQ(bytes(id, s, rank, false), B * (inside + between));
      EXPECT_EQ(bytes(id, s, rank, true), B * (inside + between + 2 * M * c * hkv * 4));
    }
  });
}

TEST(Cost, OfDoubleRingIsThatOfARing) {
  for_all_sizes([](const Sizes& s, int rank) {
    for (const bool backward : {false, true})
      EXPECT_EQ(bytes("double_ring", s, rank, backward), bytes("ring/zigzag", s, rank, backward));
  });
}

// Queries travel whole; a rank's results are for the owners above it whole, for those below halves.
TEST(Cost, OfPassQIsThatOfTokenRingWithoutMask) {
  for_all_sizes([](Sizes s, int rank) {
    for (const bool backward : {false, true})
      EXPECT_EQ(bytes("pass_q", s, rank, backward), bytes("token_ring/zigzag", s, rank, backward));
    s.problem.mask.causal = true;
    const std::int64_t queries = (s.P - 1) * s.c, results = (2 * (s.P - 1 - rank) + rank) * s.c / 2;
    EXPECT_EQ(bytes("pass_q", s, rank, false),
              s.B * (queries * s.h * s.e + results * (s.h * s.e + 4 * s.H)));
  });
}

// The paper counts scalars of all ranks' blocks: (G-1)/G (3 BZNd + 2 BZN), whatever the mask. Those
// of dQ, lse and delta are f32 here.
TEST(Cost, OfBurstIsThreeUnitsBackward) {
  for_all_sizes([](Sizes s, int rank) {
    const std::int64_t blocks = s.B * (s.P - 1) * s.c;
    for (const bool causal : {false, true}) {
      s.problem.mask.causal = causal;
      EXPECT_EQ(bytes("burst", s, rank, false), bytes("ring/contiguous", s, rank, false));
      EXPECT_EQ(bytes("burst", s, rank, true), blocks * (2 * s.h * s.e + s.h * 4 + 2 * s.H * 4));
    }
  });
}

// The mean over ranks, which are even in number; for multi-head attention without log-sum-exps that
// is the paper's N d, times (P-1)/P.
TEST(Cost, OfDistFlashIsHalfOfARing) {
  for_all_sizes([](Sizes s, int rank) {
    EXPECT_EQ(bytes("dist_flash", s, rank, false), bytes("ring/contiguous", s, rank, false));
    if (rank > 0) return;
    s.problem.mask.causal = true;
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    const std::int64_t fetched = P * (3 * P - 2) / 8, helped = P * (P - 2) / 8;  // blocks of all
    std::int64_t forward = 0, backward = 0;
    for (int each = 0; each < P; ++each) {
      forward += bytes("dist_flash", s, each, false);
      backward += bytes("dist_flash", s, each, true);
    }
    EXPECT_EQ(forward, B * c * (fetched * 2 * hkv * e + helped * (2 * h * e + 4 * H)));
    EXPECT_EQ(backward,
              B * c * (fetched * 2 * hkv * (e + 4) + helped * (2 * h * e + 2 * H * 4 + h * 4)));
    if (h == hkv) {
      EXPECT_EQ(forward, P * B * (P - 1) * c * h * e + B * c * helped * 4 * H);
    }
  });
}

TEST(Cost, OfDistFlashIsTheSameWorkOnAnOddNumberOfRanks) {
  const Algorithm& algorithm = *find_algorithm("dist_flash");
  Problem problem;
  problem.mask.causal = true;
  for (const int P : {3, 4, 7, 8}) {
    problem.shape = {1, 4 * P, 2, 1, 8, 8};
    const Layout layout(algorithm.sharding, problem.shape.N, P);
    const auto flops = [&](int rank) {
      return algorithm.cost(problem, layout, {P, 1}, rank).forward.flops;
    };
    const std::int64_t block = attention_flops(4 * 4, 1, 2, 8, 8);
    for (int rank = 0; rank < P; ++rank) {
      const bool idle = P % 2 == 0 && rank < P / 2;  // in the last step
      EXPECT_EQ(flops(rank), flops(P - 1) - (idle ? block : 0)) << rank << " of " << P;
    }
  }
}

TEST(Cost, OfAllGatherIsThatOfARing) {
  for_all_sizes([](const Sizes& s, int rank) {
    const auto [problem, world, B, P, c, H, h, hkv, e] = s;
    EXPECT_EQ(bytes("allgather", s, rank, false), B * 2 * (P - 1) * c * hkv * e);
    // K, V are gathered again; dK, dV are reduce-scattered in f32.
    EXPECT_EQ(bytes("allgather", s, rank, true),
              B * (2 * (P - 1) * c * hkv * e + 2 * (P - 1) * c * hkv * 4));
  });
}

}  // namespace
}  // namespace sp::test
