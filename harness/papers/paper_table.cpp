// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/paper_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <string_view>

#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::array<std::string_view, 5> kGrades{"printed", "text", "picture", "secondary",
                                                  "derived"};
constexpr std::array<std::string_view, 24> kUnits{
    "text", "1",   "percent", "token", "token/s", "1/s",     "s",     "ms",
    "us",   "day", "byte",    "kB",    "MB",      "GB",      "TB",    "KiB",
    "MiB",  "GiB", "GB/s",    "flop",  "TFLOP",   "TFLOP/s", "pixel", "parameter"};

// A cell as a number; `shift` is the power of two of a binary suffix.
struct Number {
  double value = 0;
  double last_digit = 0;  // one unit of it
};

bool parse(std::string_view text, bool suffixed, Number& number) {
  double scale = 1;
  if (suffixed && !text.empty()) {
    const std::string_view suffixes = "KMG";
    const std::size_t at = suffixes.find(text.back());
    if (at != std::string_view::npos) {
      scale = std::ldexp(1.0, 10 * static_cast<int>(at + 1));
      text.remove_suffix(1);
    }
  }
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number.value);
  if (error != std::errc() || stop != end || !std::isfinite(number.value)) return false;
  number.value *= scale;
  const std::size_t exponent_at = text.find_first_of("eE");
  int exponent = 0;
  if (exponent_at != std::string_view::npos) {
    const char* from = text.data() + exponent_at + 1;
    std::from_chars(*from == '+' ? from + 1 : from, end, exponent);
  }
  const std::string_view mantissa = text.substr(0, exponent_at);
  const std::size_t point = mantissa.find('.');
  const auto decimals =
      point == std::string_view::npos ? 0 : static_cast<int>(mantissa.size() - point - 1);
  number.last_digit = scale * std::pow(10.0, exponent - decimals);
  return true;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

template <class List>
std::string joined(const List& words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

// One line of a file, and complaints that name it.
class Line {
 public:
  Line(const std::string& path, int number, std::string text)
      : path_(path), number_(number), text_(std::move(text)) {}

  const std::string& text() const { return text_; }

  [[noreturn]] void refuse(const std::string& problem) const {
    throw Error(ErrorKind::kUsage, fmt::format("{}:{}: {}", path_, number_, problem));
  }

  void require(bool condition, const std::string& problem) const {
    if (!condition) refuse(problem);
  }

  Grade grade(std::string_view word) const {
    const auto found = std::find(kGrades.begin(), kGrades.end(), word);
    if (found == kGrades.end())
      refuse(fmt::format("unknown grade '{}'; allowed: {}", word, joined(kGrades)));
    return static_cast<Grade>(found - kGrades.begin());
  }

  // As in RFC 4180, but a field ends with its line.
  std::vector<std::string> fields() const {
    std::vector<std::string> all(1);
    bool quoted = false, closed = false;
    for (std::size_t i = 0; i < text_.size(); ++i) {
      const char c = text_[i];
      if (quoted && c == '"' && i + 1 < text_.size() && text_[i + 1] == '"') {
        all.back() += text_[++i];
      } else if (quoted) {
        closed = c == '"';
        quoted = !closed;
        if (quoted) all.back() += c;
      } else if (c == ',') {
        all.emplace_back();
        closed = false;
      } else {
        require(!closed, "text after a closing quote; allowed: a comma");
        require(c != '"' || all.back().empty(), "a quote within a field; allowed: \"\" in quotes");
        quoted = c == '"';
        if (!quoted) all.back() += c;
      }
    }
    require(!quoted, "a quote that is not closed");
    return all;
  }

 private:
  const std::string& path_;
  int number_;
  std::string text_;
};

std::vector<Line> lines_of(const std::string& path) {
  // Opening a pipe would wait for a writer.
  std::ifstream file;
  if (std::filesystem::is_regular_file(path)) file.open(path);
  if (!file.is_open()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("cannot read {}; allowed: a table of data/papers by its name, or the "
                            "path of a .csv file",
                            path));
  }
  std::vector<Line> lines;
  int number = 0;
  for (std::string text; std::getline(file, text);) {
    lines.emplace_back(path, ++number, text);
    lines.back().require(!text.empty(), "an empty line");
    lines.back().require(text.find('\r') == std::string::npos,
                         "a carriage return; allowed: lines that end with a line feed alone");
  }
  return lines;
}

}  // namespace

// Reads the head line by line, then the rows.
class PaperTableReader {
 public:
  explicit PaperTableReader(const std::string& path) : path_(path) {
    table_.file_ = path;
    const std::size_t slash = path.find_last_of('/') + 1;
    table_.name_ = path.substr(slash, path.rfind('.') - slash);
  }

  PaperTable read() {
    const std::vector<Line> lines = lines_of(path_);
    std::size_t at = 0;
    while (at < lines.size() && lines[at].text().front() == '#') add_head(lines[at++]);
    for (const char* key : {"title", "citation", "grade", "units"}) {
      if (!keys_.contains(key))
        throw Error(ErrorKind::kUsage, fmt::format("{}: no line '# {}: ...'", path_, key));
    }
    if (at + 1 >= lines.size())
      throw Error(ErrorKind::kUsage, fmt::format("{}: no rows below the head", path_));
    add_columns(lines[at++]);
    std::set<std::vector<std::string>> seen;
    for (; at < lines.size(); ++at) {
      add_row(lines[at]);
      lines[at].require(seen.insert(table_.cells_.back()).second, "a row that was there before");
    }
    return std::move(table_);
  }

 private:
  void add_head(const Line& line) {
    const std::string_view text = line.text();
    const std::size_t colon = text.find(": ");
    line.require(text.starts_with("# ") && colon != std::string_view::npos,
                 "not a line '# key: value'");
    const std::string key(text.substr(2, colon - 2)), value(trimmed(text.substr(colon + 2)));
    line.require(!value.empty(), fmt::format("'{}' is empty", key));
    line.require(key == "note" || keys_.insert(key).second, fmt::format("'{}' twice", key));
    if (key == "note") {
      table_.notes_.push_back(value);
    } else if (key == "title") {
      table_.title_ = value;
    } else if (key == "citation") {
      table_.citation_ = value;
    } else if (key == "grade") {
      table_.grade_ = line.grade(value);
    } else if (key == "units") {
      add_units(line, value);
    } else {
      line.refuse(
          fmt::format("unknown key '{}'; allowed: title, citation, grade, units, note", key));
    }
  }

  void add_units(const Line& line, std::string_view list) {
    while (!list.empty()) {
      const std::size_t comma = list.find(',');
      const std::string_view pair = trimmed(list.substr(0, comma));
      list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
      const std::size_t equals = pair.find('=');
      line.require(equals != std::string_view::npos && equals > 0,
                   fmt::format("'{}' is not column=unit", pair));
      const std::string_view unit = pair.substr(equals + 1);
      line.require(std::find(kUnits.begin(), kUnits.end(), unit) != kUnits.end(),
                   fmt::format("unknown unit '{}'; allowed: {}", unit, joined(kUnits)));
      unit_columns_.emplace_back(pair.substr(0, equals));
      table_.units_.emplace_back(unit);
    }
  }

  void add_columns(const Line& line) {
    table_.columns_ = line.fields();
    for (const std::string& column : table_.columns_) {
      const bool plain =
          column.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
      line.require(plain && !column.empty(),
                   fmt::format("column '{}'; allowed: lower-case letters, digits, _", column));
      line.require(std::count(table_.columns_.begin(), table_.columns_.end(), column) == 1,
                   fmt::format("column '{}' twice", column));
    }
    line.require(table_.columns_ == unit_columns_,
                 fmt::format("the columns are not those of the units, in their order: {}",
                             joined(unit_columns_)));
  }

  void add_row(const Line& line) {
    std::vector<std::string> cells = line.fields();
    line.require(cells.size() == table_.columns_.size(),
                 fmt::format("{} fields for {} columns", cells.size(), table_.columns_.size()));
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (cells[i].empty()) continue;
      if (table_.columns_[i] == "grade") line.grade(cells[i]);
      Number number;
      line.require(
          table_.units_[i] == "text" || parse(cells[i], table_.units_[i] == "token", number),
          fmt::format("column {}: '{}' is not a number", table_.columns_[i], cells[i]));
    }
    table_.cells_.push_back(std::move(cells));
  }

  const std::string& path_;
  std::set<std::string> keys_;
  std::vector<std::string> unit_columns_;
  PaperTable table_;
};

std::string name_of(Grade grade) { return std::string(kGrades[static_cast<std::size_t>(grade)]); }

Grade PaperTable::grade(std::size_t row) const {
  const auto column = std::find(columns_.begin(), columns_.end(), "grade");
  if (column == columns_.end()) return grade_;
  const std::string& word = text(row, "grade");
  const auto found = std::find(kGrades.begin(), kGrades.end(), word);
  return found == kGrades.end() ? grade_ : static_cast<Grade>(found - kGrades.begin());
}

std::size_t PaperTable::column_index(const std::string& column) const {
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  if (found == columns_.end())
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: no column '{}'; there are: {}", file_, column, joined(columns_)));
  return static_cast<std::size_t>(found - columns_.begin());
}

std::string PaperTable::unit(const std::string& column) const {
  return units_[column_index(column)];
}

const std::string& PaperTable::text(std::size_t row, const std::string& column) const {
  SP_CHECK(row < rows(), "a row beyond the last");
  return cells_[row][column_index(column)];
}

double PaperTable::number(std::size_t row, const std::string& column) const {
  const std::string& cell = text(row, column);
  if (cell.empty()) return std::numeric_limits<double>::quiet_NaN();
  Number number;
  if (!parse(cell, unit(column) == "token", number))
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: column {}: '{}' is not a number", file_, column, cell));
  return number.value;
}

double PaperTable::rounding(std::size_t row, const std::string& column) const {
  Number number;
  const std::string& cell = text(row, column);
  return parse(cell, unit(column) == "token", number) ? number.last_digit / 2 : 0;
}

PaperTable read_paper_table(const std::string& path) { return PaperTableReader(path).read(); }

PaperTable paper_table(const std::string& name) {
  return read_paper_table(shipped(fmt::format("data/papers/{}.csv", name)).string());
}

}  // namespace sp
