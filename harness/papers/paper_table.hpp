// A table of a paper: data/papers/<name>.csv, whose first lines say where it comes from.
//
//   # title: USP tables 3 and 4, attention forward
//   # citation: Fang, Zhao 2024, arXiv:2405.07719, tables 3-4
//   # grade: printed            (printed, text, picture, secondary, or derived)
//   # units: tokens=token, ulysses=1, basic_ring=1/s, hardware=text
//   # note: optional, may repeat (errata, uncertainty)
//   table,hardware,tokens,...
// Fields with commas are quoted as in RFC 4180. Every column has a unit ("text" for words, "1" for
// pure numbers). An empty field is a missing value. A column `grade` overrides the file's per row.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sp {

enum class Grade : std::uint8_t { kPrinted, kText, kPicture, kSecondary, kDerived };
std::string name_of(Grade grade);

class PaperTable {
 public:
  const std::string& name() const { return name_; }
  const std::string& title() const { return title_; }
  const std::string& citation() const { return citation_; }
  Grade grade() const { return grade_; }
  Grade grade(std::size_t row) const;
  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<std::string>& notes() const { return notes_; }
  std::string unit(const std::string& column) const;
  std::size_t rows() const { return cells_.size(); }
  // Throw Error(kUsage) for a column that is not there; number() is NaN for a missing value and
  // throws for words. Numbers may carry a binary suffix (8K) in columns of unit token.
  const std::string& text(std::size_t row, const std::string& column) const;
  double number(std::size_t row, const std::string& column) const;
  // Half a unit of the last printed digit: how far rounding alone may be off.
  double rounding(std::size_t row, const std::string& column) const;

 private:
  friend class PaperTableReader;
  std::size_t column_index(const std::string& column) const;
  std::string name_, title_, citation_, file_;
  Grade grade_ = Grade::kPrinted;
  std::vector<std::string> columns_, units_, notes_;
  std::vector<std::vector<std::string>> cells_;
};

PaperTable read_paper_table(const std::string& path);  // strict: see above
PaperTable paper_table(const std::string& name);       // data/papers/<name>.csv of the source tree

}  // namespace sp
