// Recursive descent over sums, products, powers.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/formula.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

bool is_digit(char c) { return (c >= '0' && c <= '9') || c == '.'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Parser {
 public:
  Parser(const std::string& formula, const Symbols& symbols)
      : formula_(formula), symbols_(symbols) {}

  double all() {
    const double value = sum();
    if (peek() != '\0') refuse("unexpected text");
    return value;
  }

 private:
  [[noreturn]] void refuse(const std::string& problem) const {
    throw Error(ErrorKind::kUsage,
                fmt::format("formula '{}', character {}: {}; allowed: numbers, symbols, + - * / ^ "
                            "and parentheses",
                            formula_, at_ + 1, problem));
  }

  // The next character that is not blank; 0 at the end.
  char peek() {
    while (at_ < formula_.size() && formula_[at_] == ' ') ++at_;
    return at_ < formula_.size() ? formula_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  double sum() {
    double value = product();
    while (true) {
      if (take('+')) {
        value += product();
      } else if (take('-')) {
        value -= product();
      } else {
        return value;
      }
    }
  }

  double product() {
    double value = power();
    while (true) {
      if (take('*')) {
        value *= power();
      } else if (take('/')) {
        value /= power();
      } else {
        return value;
      }
    }
  }

  double power() {
    const double base = factor();
    return take('^') ? std::pow(base, factor()) : base;
  }

  double factor() {
    if (take('(')) {
      // Tables hold no deep formulas; a hostile one must not exhaust the stack.
      if (++depth_ > 100) refuse("more than 100 parentheses");
      const double value = sum();
      if (!take(')')) refuse("a parenthesis is not closed");
      --depth_;
      return value;
    }
    const char c = peek();
    const std::size_t begin = at_;
    if (is_digit(c)) {
      double value = 0;
      const char* end = formula_.data() + formula_.size();
      const auto [stop, error] = std::from_chars(formula_.data() + begin, end, value);
      if (error != std::errc()) refuse("not a number");
      at_ = static_cast<std::size_t>(stop - formula_.data());
      return value;
    }
    if (!is_letter(c)) refuse("a number or a symbol is missing");
    while (at_ < formula_.size() && (is_letter(formula_[at_]) || is_digit(formula_[at_]))) ++at_;
    const auto symbol = symbols_.find(formula_.substr(begin, at_ - begin));
    if (symbol == symbols_.end())
      refuse(fmt::format("'{}' has no value", formula_.substr(begin, at_ - begin)));
    return symbol->second;
  }

  const std::string& formula_;
  const Symbols& symbols_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

double evaluate(const std::string& formula, const Symbols& symbols) {
  return Parser(formula, symbols).all();
}

}  // namespace sp
