// Strings of variable length: whoever reads a foreign file gets them, and only its child asks HDF5.
// SPDX-License-Identifier: Apache-2.0
#include "harness/results/heap_text.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include "harness/results/foreign_file.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

using Texts = std::vector<std::string>;

Texts read_by() {
  return read_heap_texts("who", [] { return Texts{std::to_string(::getpid())}; });
}

TEST(HeapText, OfAForeignFileIsReadByTheChildAlone) {
  const test::TemporaryDirectory directory;
  test::write_bytes(directory.file("f"), {});
  const auto read = [](const std::string&, std::int64_t) { return read_by(); };
  EXPECT_NE(read_foreign_file(directory.file("f"), read), Texts{std::to_string(::getpid())});
  EXPECT_EQ(read_by(), Texts{std::to_string(::getpid())}) << "of a file of our own";
}

TEST(HeapText, ComesBackAsItWas) {
  const std::vector<std::pair<std::string, Texts>> all{{"none", {}},
                                                       {"empty", {"", ""}},
                                                       {"long", {std::string(100'000, 'x')}},
                                                       {"zero", {{"a\0b", 3}}}};
  std::string record;
  {
    HeapTexts texts;
    for (const auto& [what, values] : all)
      EXPECT_EQ(read_heap_texts(what, [&v = values] { return v; }), values);
    record = texts.record();
  }
  const HeapTexts texts(record);
  for (const auto& [what, values] : all)
    EXPECT_EQ(read_heap_texts(what, []() -> Texts { throw std::logic_error("read again"); }),
              values);
}

TEST(HeapText, OfAChangedFileIsRefused) {
  std::string record;
  {
    HeapTexts texts;
    read_by();
    record = texts.record();
  }
  const auto refused = [](const std::string& text, const std::string& what) {
    const HeapTexts texts(text);
    EXPECT_THROW(read_heap_texts(what, [] { return Texts{}; }), Error) << text.size() << what;
  };
  refused(record, "another");
  for (std::size_t size = 0; size < record.size(); ++size) refused(record.substr(0, size), "who");
}

}  // namespace
}  // namespace sp
