// The papers' tables: every file of data/papers reads strictly and is listed; a
// table that is not as it should be is refused with its line.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/paper_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

const std::filesystem::path kFolder = shipped("data/papers");

const std::string kHead =
    "# title: A title\n# citation: Somebody 2024, "
    "arXiv:2401.00001, table 1\n# grade: printed\n"
    "# units: name=text, tokens=token, rate=1/s, "
    "grade=text\n# note: one\n# note: two: with colon\n";
const std::string kTable = kHead + "name,tokens,rate,grade\n";

class Tables : public testing::Test {
 protected:
  PaperTable read(const std::string& text) {
    const std::string path = directory_.file("sample.csv");
    std::ofstream(path) << text;
    return read_paper_table(path);
  }
  std::string refusal(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "not refused";
  }

 private:
  test::TemporaryDirectory directory_;
};

TEST_F(Tables, HaveHeadColumnsAndCells) {
  const PaperTable table =
      read(kTable + "\"a, \"\"b\"\"\",8K,57.346,\nplain,1.5e3,-2,picture\nempty,,,derived\n");
  EXPECT_EQ(table.name(), "sample");
  EXPECT_EQ(table.title(), "A title");
  EXPECT_EQ(table.citation(), "Somebody 2024, arXiv:2401.00001, table 1");
  EXPECT_EQ(table.notes(), (std::vector<std::string>{"one", "two: with colon"}));
  EXPECT_EQ(table.unit("rate"), "1/s");
  ASSERT_EQ(table.rows(), 3u);
  EXPECT_EQ(table.text(0, "name"), "a, \"b\"");
  EXPECT_EQ(table.number(0, "tokens"), 8192);
  EXPECT_EQ(table.number(0, "rate"), 57.346);
  EXPECT_EQ(table.number(1, "tokens"), 1500);
  EXPECT_TRUE(std::isnan(table.number(2, "rate")));
  EXPECT_EQ(table.grade(), Grade::kPrinted);
  EXPECT_EQ(table.grade(0), Grade::kPrinted);
  EXPECT_EQ(table.grade(1), Grade::kPicture);
  EXPECT_EQ(table.grade(2), Grade::kDerived);
  EXPECT_THROW(table.number(0, "name"), Error);
  EXPECT_THROW(table.number(0, "speed"), Error);
}

TEST_F(Tables, KnowTheLastPrintedDigit) {
  const PaperTable table = read(kTable + "a,8K,57.346,\nb,24.5e3,416,\nc,300,1.0,\nx,7,4e-5,\n");
  EXPECT_DOUBLE_EQ(table.rounding(0, "tokens"), 512);
  EXPECT_DOUBLE_EQ(table.rounding(0, "rate"), 0.0005);
  EXPECT_DOUBLE_EQ(table.rounding(1, "tokens"), 50);
  EXPECT_DOUBLE_EQ(table.rounding(1, "rate"), 0.5);
  EXPECT_DOUBLE_EQ(table.rounding(2, "rate"), 0.05);
  EXPECT_DOUBLE_EQ(table.rounding(3, "rate"), 0.5e-5);
}

TEST_F(Tables, AreRefusedWithTheirLine) {
  const std::string row = "a,8K,57.346,\n";
  const std::vector<std::pair<std::string, std::string>> wrong{
      {kTable, "no rows"},
      {kTable + row + "\n" + row, ":9: an empty line"},
      {kTable + row + row, ":9: a row that was there before"},
      {kTable + "a,8K,57.346\n", ":8: 3 fields for 4 columns"},
      {kTable + "a,8K,57.346,,\n", ":8: 5 fields for 4 columns"},
      {kTable + "a,8T,57.346,\n", ":8: column tokens: '8T' is not a number"},
      {kTable + "a,8,5K,\n", ":8: column rate: '5K' is not a number"},
      {kTable + "a,8,nan,\n", "'nan' is not a number"},
      {kTable + "a,8,1 ,\n", "'1 ' is not a number"},
      {kTable + "a,8,1,guess\n", ":8: unknown grade 'guess'; allowed: printed"},
      {kTable + "\"a,8,1,\n", ":8: a quote that is not closed"},
      {kTable + "\"a\"b,8,1,\n", ":8: text after a closing quote"},
      {kTable + "a\"b,8,1,\n", ":8: a quote within a field"},
      {kTable + "a,8,1,\r\n", ":8: a carriage return"},
      {kHead + "name,tokens,speed,grade\n" + row, ":7: the columns are not those of the units"},
      {kHead + "name,tokens,Rate,grade\n" + row, ":7: column 'Rate'"},
      {kHead + "# title: again\n" + row, ":7: 'title' twice"},
      {kHead + "# author: me\n" + row, ":7: unknown key 'author'; allowed: title"},
      {kHead + "# note:\n" + row, ":7: not a line '# key: value'"},
      {"# units: a=furlong\n" + kTable + row, ":1: unknown unit 'furlong'; allowed: text"},
      {"# grade: guess\n" + kTable + row, ":1: unknown grade 'guess'"},
      {"# title: A\na\n1\n", "no line '# citation: ...'"},
  };
  for (const auto& [text, said] : wrong) {
    const std::string message = refusal(text);
    EXPECT_NE(message.find(said), std::string::npos) << message << "\nexpected: " << said;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_THROW(paper_table("no_such_table"), Error);
}

std::vector<PaperTable> shipped() {
  std::vector<PaperTable> tables;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".csv")
      tables.push_back(read_paper_table(entry.path().string()));
  }
  return tables;
}

TEST(ShippedTables, ReadStrictlyAndNameTheirSource) {
  const std::vector<PaperTable> tables = shipped();
  EXPECT_GE(tables.size(), 60u);
  const std::regex source("arXiv:[0-9]{4}\\.[0-9]{5}|github\\.com|the papers of the methods");
  for (const PaperTable& table : tables) {
    EXPECT_TRUE(std::regex_search(table.citation(), source)) << table.name();
    const auto& columns = table.columns();
    if (std::find(columns.begin(), columns.end(), "status") == columns.end()) continue;
    for (std::size_t row = 0; row < table.rows(); ++row)
      EXPECT_TRUE(table.text(row, "status") == "ok" || table.text(row, "status") == "oom")
          << table.name() << ", row " << row;
  }
}

TEST(ShippedTables, AreTheOnesThatTheReadmeLists) {
  std::set<std::string> files, listed;
  for (const PaperTable& table : shipped())
    files.insert(table.name() + ": " + table.title() + " (" + name_of(table.grade()) + ")");
  std::ifstream readme(kFolder / "README.md");
  const std::regex row("\\| \\[`(.*)`\\]\\((.*)\\.csv\\) \\| (.*) \\| (.*) \\|");
  for (std::string line; std::getline(readme, line);) {
    std::smatch found;
    if (!std::regex_match(line, found, row)) continue;
    EXPECT_EQ(found[1], found[2]);
    EXPECT_TRUE(
        listed.insert(found.str(1) + ": " + found.str(3) + " (" + found.str(4) + ")").second);
  }
  EXPECT_EQ(files, listed);
}

// Totals that the sources print, so that a lost row is seen.
TEST(ShippedTables, HaveAllTheirRows) {
  for (const auto& [name, rows] :
       std::vector<std::pair<const char*, std::size_t>>{{"striped_speedups", 137},
                                                        {"ring_attention_figure5", 54},
                                                        {"ring_attention_table3", 13},
                                                        {"burst", 70},
                                                        {"usp_attention", 20},
                                                        {"usp_training", 40},
                                                        {"lasp2_table6", 48},
                                                        {"token_ring_profile", 28}}) {
    EXPECT_EQ(paper_table(name).rows(), rows) << name;
  }
}

}  // namespace
}  // namespace sp
