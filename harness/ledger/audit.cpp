// What is wrong with a run, in one line.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "harness/ledger/books.hpp"

namespace sp::ledger {
namespace {

using std::int64_t;

struct Field {
  const char* name;
  HostTensor Outputs::* tensor;
  Sum sum;  // of softmax attention's pairs; kState: none
};
constexpr Field kFields[] = {{"out", &Outputs::out, Sum::kOut},
                             {"lse", &Outputs::lse, Sum::kState},
                             {"d_q", &Outputs::d_q, Sum::kDQ},
                             {"d_k", &Outputs::d_k, Sum::kDK},
                             {"d_v", &Outputs::d_v, Sum::kDV},
                             {"d_projection_k", &Outputs::d_projection_k, Sum::kState},
                             {"d_projection_v", &Outputs::d_projection_v, Sum::kState},
                             {"d_log_decay", &Outputs::d_log_decay, Sum::kState},
                             {"d_gamma", &Outputs::d_gamma, Sum::kState},
                             {"d_beta", &Outputs::d_beta, Sum::kState}};

std::string describe(const Books& books, const Field& field, const HostTensor& found,
                     const HostTensor& expected, int64_t element) {
  const int64_t columns = found.extent(3), heads = found.extent(2), N = found.extent(1);
  const int64_t row = element / columns, column = element % columns;
  const int64_t b = row / heads / N, n = row / heads % N, h = row % heads;
  std::string message =
      fmt::format("{} of batch {}, token {}, head {}: column {} holds {}, expected {}", field.name,
                  b, n, h, column, found.at(element), expected.at(element));
  if (column != 0 || columns < 2 || field.sum == Sum::kState || books.problem.module)
    return message;
  return message + explain(books, field.sum, b, n, h, found.at(element), found.at(element + 1));
}

}  // namespace

std::string explain(const Books& books, Sum sum, int64_t b, int64_t n, int64_t head, double first,
                    double second) {
  if (books.problem.projected > 0) return {};
  const bool of_query = sum == Sum::kOut || sum == Sum::kDQ;
  const Entry& wanted = sum == Sum::kOut  ? books.out(b, head, n)
                        : sum == Sum::kDQ ? books.d_q(b, head, n)
                        : sum == Sum::kDK ? books.d_k(b, head, n)
                                          : books.d_v(b, head, n);
  if (!(std::fabs(first) < 0x1p53) || !(std::fabs(second) < 0x1p53)) return {};
  const double pairs = second - first;
  const std::string message = fmt::format(" ({} of {} pairs)", pairs, wanted.count);
  const int64_t difference = std::llabs(static_cast<int64_t>(first) - wanted.total);
  const int64_t group = books.problem.shape.H / books.problem.shape.G;
  const int64_t begin = of_query ? head : head * group, end = begin + (of_query ? 1 : group);
  for (int64_t h = begin; h < end; ++h) {
    for (int64_t other = 0; other < books.problem.shape.N; ++other) {
      const int64_t i = of_query ? n : other, j = of_query ? other : n;
      if (difference != Weights(sum, b, h, i)[j]) continue;
      return fmt::format("{}; the pair of query {} and key {}, head {}, is {}", message, i, j, h,
                         pairs < static_cast<double>(wanted.count) ? "missing" : "one too many");
    }
  }
  return message;
}

std::string audit(const Books& books, const Outputs& outputs) {
  for (const Field& field : kFields) {
    const HostTensor &found = outputs.*field.tensor, &expected = books.outputs.*field.tensor;
    if (found.shape() != expected.shape()) {
      return fmt::format("{} has shape {}, expected {}", field.name, describe_shape(found.shape()),
                         describe_shape(expected.shape()));
    }
    for (int64_t element = 0; element < found.size(); ++element) {
      if (found.at(element) == expected.at(element)) continue;
      if (found.shape().size() == 4) return describe(books, field, found, expected, element);
      return fmt::format("element {} of {} is {}, expected {}", element, field.name,
                         found.at(element), expected.at(element));
    }
  }
  return {};
}

}  // namespace sp::ledger
