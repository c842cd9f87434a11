// Whether the operands of a block of attention are what the kernel is told they are.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <utility>

#include "harness/mutants/tensor_edits.hpp"
#include "harness/witness/witness.hpp"

namespace sp {
namespace {

using std::int64_t;

// The rows of one head of a local tensor against those of one head of the problem.
class LocalRows {
 public:
  LocalRows(const Tensor& local, const HostTensor& whole, const Tokens& tokens)
      : values_(values_of(local)), local_(local), whole_(whole), tokens_(tokens) {}

  bool row_is(int64_t i, int64_t b, int64_t h, int64_t token, int64_t head) const {
    const int64_t width = local_.extent(3);
    const int64_t mine = ((i * local_.extent(1) + b) * local_.extent(2) + h) * width;
    const int64_t theirs = ((b * whole_.extent(1) + token) * whole_.extent(2) + head) * width;
    for (int64_t e = 0; e < width; ++e)
      if (values_[static_cast<std::size_t>(mine + e)] != whole_.at(theirs + e)) return false;
    return true;
  }
  // Of all local rows of (b, h): the first that is not where it should be, if they are of `head`.
  int64_t matching(int64_t b, int64_t h, int64_t head) const {
    int64_t i = 0;
    while (i < local_.extent(0) && row_is(i, b, h, tokens_.position(i), head)) ++i;
    return i;
  }
  std::optional<int64_t> token_of(int64_t i, int64_t b, int64_t h, int64_t head) const {
    for (int64_t n = 0; n < whole_.extent(1); ++n)
      if (row_is(i, b, h, n, head)) return n;
    return std::nullopt;
  }

 private:
  std::vector<double> values_;
  const Tensor& local_;
  const HostTensor& whole_;
  const Tokens& tokens_;
};

// Log-sum-exps and deltas of local rows against those over all keys.
class CompleteRows {
 public:
  CompleteRows(const Witness& witness, const Tokens& tokens, std::vector<double> logs,
               std::vector<double> deltas)
      : witness_(witness),
        tokens_(tokens),
        logs_(std::move(logs)),
        deltas_(std::move(deltas)),
        u_(unit_roundoff(witness.problem().dtype)) {
    const HostTensor& v = witness.inputs().v;
    for (int64_t i = 0; i < v.size(); ++i) largest_ = std::max(largest_, std::fabs(v.at(i)));
  }

  // Of local head h of `heads`, which is `head` of the problem.
  std::string wrong(int64_t b, int64_t h, int64_t heads, int64_t head) const {
    const Shape& s = witness_.problem().shape;
    const HostTensor &out = witness_.exact()->out, &d_out = witness_.inputs().d_out;
    for (int64_t i = 0; i < tokens_.count(); ++i) {
      const int64_t n = tokens_.position(i);
      const auto at = static_cast<std::size_t>((i * s.B + b) * heads + h);
      const double log = witness_.exact()->lse.at((b * s.H + head) * s.N + n);
      double sum = 0, size = 0, rounded = 0;
      for (int64_t e = 0; e < s.E; ++e) {
        const int64_t element = ((b * s.N + n) * s.H + head) * s.E + e;
        sum += d_out.at(element) * out.at(element);
        size += std::fabs(d_out.at(element) * out.at(element));
        rounded += std::fabs(d_out.at(element)) * largest_;
      }
      const auto off = [&](const char* name, double is, double should) {
        return fmt::format("the {} of token {}, head {} as {:.6g}: over all keys it is {:.6g}",
                           name, n, head, is, should);
      };
      // Far above all rounding, far below what missing keys or another base change.
      if (std::isfinite(log) && !(std::fabs(logs_[at] - log) <= 1e-2 + 1e-3 * std::fabs(log)))
        return off("log-sum-exp", logs_[at], log);
      if (!(std::fabs(deltas_[at] - sum) <= 1e-3 * size + 8 * u_ * rounded + 1e-30))
        return off("delta", deltas_[at], sum);
    }
    return {};
  }

 private:
  const Witness& witness_;
  const Tokens& tokens_;
  const std::vector<double> logs_, deltas_;
  const double u_;
  double largest_ = 0;  // value
};

// "k whose row 3, said to be token 12, is token 4": empty, if every local head is one of the problem's.
std::string misplaced(const char* name, const Tensor& local, const HostTensor& whole,
                      const Tokens& tokens) {
  if (!local.defined() || local.extent(0) != tokens.count() || local.dtype() != whole.dtype() ||
      local.elements() == 0 || local.extent(1) != whole.extent(0) ||
      local.extent(3) != whole.extent(3))
    return {};
  const LocalRows rows(local, whole, tokens);
  for (int64_t b = 0; b < local.extent(1); ++b) {
    for (int64_t h = 0; h < local.extent(2); ++h) {
      int64_t best = -1, best_head = 0;  // rows that match
      for (int64_t head = 0; head < whole.extent(2); ++head) {
        const int64_t right = rows.matching(b, h, head);
        if (right > best) best = right, best_head = head;
      }
      if (best == local.extent(0)) continue;
      std::string text = fmt::format("{} whose row {}, said to be of token {},", name, best,
                                     tokens.position(best));
      for (int64_t head = best_head, tried = 0; tried < whole.extent(2);
           ++tried, head = (head + 1) % whole.extent(2)) {
        if (const auto token = rows.token_of(best, b, h, head))
          return text + fmt::format(" is of token {}, head {}", *token, head);
      }
      return text + " is of no token";
    }
  }
  return {};
}

}  // namespace

std::string misplaced_operand(const Witness& witness, const AttentionBlock& block) {
  const Problem& problem = witness.problem();
  if (problem.projected > 0) return {};
  const Inputs& inputs = witness.inputs();
  // In a stack the queries of a layer are the outputs of the one before it.
  std::string wrong =
      problem.layers.empty() ? misplaced("q", block.q, inputs.q, block.q_tokens) : std::string();
  if (wrong.empty()) wrong = misplaced("k", block.k, inputs.k, block.k_tokens);
  if (wrong.empty()) wrong = misplaced("v", block.v, inputs.v, block.k_tokens);
  return wrong;
}

std::string misplaced_operand(const Witness& witness, const LinearBlock& block,
                              std::string_view used) {
  static const MaskTerms kNone{};
  const Tokens tokens({block.tokens});
  const auto if_used = [&](char name, const Tensor& operand) {
    return used.find(name) == used.npos ? Tensor() : operand;
  };
  return misplaced_operand(
      witness, {if_used('q', block.q), if_used('k', block.k), if_used('v', block.v), tokens, tokens,
                kNone, block.terms.scale});
}

std::string incomplete_rows(const Witness& witness, const AttentionBlock& block,
                            const Tensor& d_out, const Tensor& lse, const Tensor& delta) {
  const Problem& problem = witness.problem();
  const Outputs* exact = witness.exact();
  if (exact == nullptr || exact->lse.absent() || problem.family() != Family::kSoftmax ||
      problem.projected > 0 || exact->lse.extent(2) != problem.shape.N)
    return {};
  if (std::string wrong = misplaced("d_out", d_out, witness.inputs().d_out, block.q_tokens);
      !wrong.empty())
    return wrong;
  const LocalRows queries(block.q, witness.inputs().q, block.q_tokens);
  const LocalRows cotangents(d_out, witness.inputs().d_out, block.q_tokens);
  const CompleteRows complete(witness, block.q_tokens, values_of(lse), values_of(delta));
  const int64_t n = block.q.extent(0);
  for (int64_t b = 0; b < problem.shape.B; ++b) {
    for (int64_t h = 0; h < block.q.extent(2); ++h) {
      std::string wrong;  // as any head whose queries these are
      for (int64_t head = 0; head < problem.shape.H; ++head) {
        if (queries.matching(b, h, head) < n || cotangents.matching(b, h, head) < n) continue;
        wrong = complete.wrong(b, h, block.q.extent(2), head);
        if (wrong.empty()) break;
      }
      if (!wrong.empty()) return wrong;
    }
  }
  return {};
}

}  // namespace sp
