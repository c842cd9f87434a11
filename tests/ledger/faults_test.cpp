// One pair of query and key among ten millions: missing, doubled, or brought to another owner.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "harness/ledger/blocks.hpp"
#include "harness/ledger/prove.hpp"
#include "optimized/algorithms/registry.hpp"
#include "optimized/kernels/kernels_decorator.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

using ledger::Entry;
using ledger::Row;
using ledger::Sum;
using ledger::Weights;

constexpr std::int64_t kTokens = 4500;  // causal: 10,127,250 pairs
constexpr std::int64_t kQuery = 4321, kKey = 1234;

enum class Fault : std::uint8_t { kNone, kMissing, kDoubled, kWrongOwner, kWrongOwnerOfKeys };

// Index of a position among a block's tokens, or -1.
std::int64_t index_of(const Tokens& tokens, std::int64_t position) {
  const std::vector<std::int64_t> all = ledger::positions_of(tokens);
  const auto found = std::find(all.begin(), all.end(), position);
  return found == all.end() ? -1 : found - all.begin();
}

// Changes what becomes of the pair in the block that has it.
class OnePair final : public KernelsDecorator {
 public:
  OnePair(Kernels& inner, Fault fault) : KernelsDecorator(inner), fault_(fault) {}

 protected:
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    KernelsDecorator::do_attention(block, result);
    const std::int64_t i = index_of(block.q_tokens, kQuery);
    if (i < 0 || index_of(block.k_tokens, kKey) < 0) return;
    const std::int64_t weight = Weights(Sum::kOut, 0, 0, kQuery)[kKey];
    const Entry pair{weight, 1}, nothing{-weight, -1};
    if (fault_ == Fault::kMissing || fault_ == Fault::kWrongOwner)
      Row(result.out, i, 0, 0).add(nothing);
    if (fault_ == Fault::kDoubled) Row(result.out, i, 0, 0).add(pair);
    if (fault_ == Fault::kWrongOwner) Row(result.out, i == 0 ? 1 : i - 1, 0, 0).add(pair);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    KernelsDecorator::do_attention_backward(block, d_out, lse, delta, gradients);
    const std::int64_t j = index_of(block.k_tokens, kKey);
    if (fault_ != Fault::kWrongOwnerOfKeys || j < 0 || index_of(block.q_tokens, kQuery) < 0) return;
    const std::int64_t weight = Weights(Sum::kDK, 0, 0, kQuery)[kKey];
    Row(gradients.d_k, j, 0, 0).add(Entry{-weight, -1});
    Row(gradients.d_k, j == 0 ? 1 : j - 1, 0, 0).add(Entry{weight, 1});
  }

 private:
  Fault fault_;
};

std::string proof_with(Fault fault) {
  static const ledger::Books books = [] {
    Problem problem;
    problem.shape = {1, kTokens, 1, 1, 2, 2};
    problem.mask.causal = true;
    return ledger::open_books(problem);
  }();
  EXPECT_GT(books.pairs, 10'000'000);
  Rig rig;
  if (fault != Fault::kNone) {
    rig.wrap_kernels = [fault](Kernels& inner, Memory&) {
      return std::make_unique<OnePair>(inner, fault);
    };
  }
  return ledger::prove_one(threads(), rig, *find_algorithm("ring/zigzag"), books, {4, 1, 1});
}

TEST(OnePairOfTenMillions, IsThere) { EXPECT_EQ(proof_with(Fault::kNone), ""); }

TEST(OnePairOfTenMillions, IsMissed) {
  const std::string wrong = proof_with(Fault::kMissing);
  EXPECT_NE(wrong.find("4321 of 4322 pairs"), wrong.npos) << wrong;
  EXPECT_NE(wrong.find("the pair of query 4321 and key 1234, head 0, is missing"), wrong.npos)
      << wrong;
}

TEST(OnePairOfTenMillions, IsNoticedTwice) {
  const std::string wrong = proof_with(Fault::kDoubled);
  EXPECT_NE(wrong.find("the pair of query 4321 and key 1234, head 0, is one too many"), wrong.npos)
      << wrong;
}

TEST(OnePairOfTenMillions, IsNoticedWithAnotherOwner) {
  EXPECT_NE(proof_with(Fault::kWrongOwner), "");
  const std::string wrong = proof_with(Fault::kWrongOwnerOfKeys);
  EXPECT_NE(wrong.find("d_k of batch 0, token 1233, head 0"), wrong.npos) << wrong;
}

}  // namespace
}  // namespace sp::test
