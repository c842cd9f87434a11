// Configuration files: what is read, and the one line that refuses everything else.
// SPDX-License-Identifier: Apache-2.0
#include "harness/config/config.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "harness/config/nearest.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "nothing refused";
}

std::string refusal_of(const std::string& text, const std::function<void(const Config&)>& read) {
  const Config config = parse_config(text, "some.toml");
  return refusal([&] { read(config); });
}

double value_of(const std::string& quantity, Dimension dimension) {
  return parse_config("x = " + quantity, "some.toml").quantity("x", dimension, 0, 1e30).value;
}

TEST(Config, ReadsEveryKindOfValue) {
  const Config config = parse_config(
      "name = \"ring\"\nkind = \"b\"\non = true\ncount = -3\nshare = 0.5\nwhole = 2\n"
      "size = \"64K\"\nids = [\"a\", \"b\"]\ncounts = [1, 2]\nsizes = [\"1K\", 3, \"2M\"]\n"
      "[inner]\ndeep = 1\n[[row]]\nx = 1\n[[row]]\nx = 2\n",
      "some.toml");
  EXPECT_EQ(config.text("name"), "ring");
  EXPECT_EQ(config.text("title", "none"), "none");
  EXPECT_EQ(config.choice("kind", {"a", "b"}), "b");
  EXPECT_TRUE(config.flag("on", false));
  EXPECT_TRUE(config.flag("off", true));
  EXPECT_EQ(config.integer("count", -5, 5), -3);
  EXPECT_EQ(config.integer("other", 0, 5, 4), 4);
  EXPECT_EQ(config.number("share", 0, 1), 0.5);
  EXPECT_EQ(config.number("whole", 0, 3), 2);
  EXPECT_EQ(config.size("size", 1), 65536);
  EXPECT_EQ(config.texts("ids"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(config.integers("counts", 0, 9), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(config.sizes("sizes", 1), (std::vector<std::int64_t>{1024, 3, 2 << 20}));
  EXPECT_EQ(config.table("inner").integer("deep", 0, 1), 1);
  ASSERT_EQ(config.tables("row").size(), 2u);
  EXPECT_EQ(config.tables("row")[0].integer("x", 0, 9), 1);
  EXPECT_EQ(config.tables("row")[1].integer("x", 0, 9), 2);
  EXPECT_TRUE(config.tables("none").empty());
  config.finish();
  EXPECT_EQ(config.file(), "some.toml");
  EXPECT_EQ(config.verbatim().substr(0, 4), "name");
  EXPECT_EQ(config.table("inner").keys(), std::vector<std::string>{"deep"});
}

TEST(Config, ConvertsUnitsToBaseUnits) {
  const auto with = [](const char* value, const char* unit) {
    return std::string("{ value = ") + value + ", unit = \"" + unit + "\", source = \"test\" }";
  };
  EXPECT_EQ(value_of(with("80", "GiB"), Dimension::kBytes), 80 * 0x1p30);
  EXPECT_EQ(value_of(with("80", "GB"), Dimension::kBytes), 80e9);
  EXPECT_EQ(value_of(with("200", "Gbit/s"), Dimension::kBandwidth), 25e9);
  EXPECT_EQ(value_of(with("2", "TB/s"), Dimension::kBandwidth), 2e12);
  EXPECT_DOUBLE_EQ(value_of(with("3.5", "us"), Dimension::kSeconds), 3.5e-6);
  EXPECT_EQ(value_of(with("312", "TFLOP/s"), Dimension::kFlopRate), 312e12);
  EXPECT_EQ(value_of(with("0.7", "1"), Dimension::kPure), 0.7);
}

TEST(Config, KeepsTheSourceAndTheFullKeyOfAQuantity) {
  const Config config = parse_config(
      "[device]\nmemory = { value = 1, unit = \"GB\", source = \"data sheet\" }\n", "some.toml");
  const Quantity memory = config.table("device").quantity("memory", Dimension::kBytes, 0, 1e12);
  EXPECT_EQ(memory.unit, "GB");
  EXPECT_EQ(memory.source, "data sheet");
  EXPECT_EQ(memory.key, "device.memory");
  config.finish();
}

TEST(Config, RefusesAQuantityThatDoesNotSayWhatItIs) {
  const auto read = [](const Config& config) {
    config.quantity("x", Dimension::kBandwidth, 1, 1e18);
    config.finish();
  };
  EXPECT_EQ(refusal_of("\nx = 25\n", read),
            "some.toml:2: x: it is the whole number 25; allowed: { value = number, unit = \"B/s\", "
            "source = \"where it is from\" }");
  EXPECT_EQ(refusal_of("x = { value = 25, unit = \"GB/s\" }", read),
            "some.toml:1: x.source: it is missing; allowed: text");
  EXPECT_EQ(refusal_of("x = { value = 25, unit = \"GB/s\", source = \" \" }", read),
            "some.toml:1: x.source: it is empty; allowed: a data sheet, paper, measurement or fit "
            "by name");
  EXPECT_EQ(refusal_of("x = { value = 25, unit = \"GB\", source = \"s\" }", read),
            "some.toml:1: x.unit: unknown value 'GB' (did you mean 'GB/s'?); allowed: B/s, GB/s, "
            "Gbit/s, GiB/s, MB/s, MiB/s, TB/s");
  EXPECT_EQ(refusal_of("x = { value = 0, unit = \"GB/s\", source = \"s\" }", read),
            "some.toml:1: x.value: it is 0 GB/s; allowed: a quantity from 1 to 1e+18 B/s");
  EXPECT_EQ(refusal_of("x = { value = nan, unit = \"GB/s\", source = \"s\" }", read),
            "some.toml:1: x.value: it is the number nan; allowed: a number, finite");
  EXPECT_EQ(refusal_of("x = { value = inf, unit = \"GB/s\", source = \"s\" }", read),
            "some.toml:1: x.value: it is the number inf; allowed: a number, finite");
  EXPECT_EQ(refusal_of("x = { value = 25, unit = \"GB/s\", source = \"s\", sauce = 1 }", read),
            "some.toml:1: x.sauce: unknown key (did you mean 'source'?); allowed: source, unit, "
            "value");
}

TEST(Config, RefusesTheWrongTypeOrRangeWithLineAndKey) {
  EXPECT_EQ(refusal_of("a = 1\nb = 2.0\n", [](const Config& c) { c.integer("b", 0, 9); }),
            "some.toml:2: b: it is the number 2; allowed: a whole number from 0 to 9");
  EXPECT_EQ(refusal_of("b = 10", [](const Config& c) { c.integer("b", 0, 9); }),
            "some.toml:1: b: it is the whole number 10; allowed: a whole number from 0 to 9");
  EXPECT_EQ(refusal_of("b = nan", [](const Config& c) { c.number("b", 0, 1); }),
            "some.toml:1: b: it is the number nan; allowed: a number from 0 to 1");
  EXPECT_EQ(refusal_of("b = true", [](const Config& c) { c.text("b"); }),
            "some.toml:1: b: it is true; allowed: text");
  EXPECT_EQ(refusal_of("b = \"yes\"", [](const Config& c) { c.flag("b", true); }),
            "some.toml:1: b: it is the text \"yes\"; allowed: true, false");
  EXPECT_EQ(refusal_of("b = [1, \"x\"]", [](const Config& c) { c.integers("b", 0, 9); }),
            "some.toml:1: b: an element is the text \"x\"; allowed: each a whole number from 0 to "
            "9");
  EXPECT_EQ(refusal_of("b = 1", [](const Config& c) { c.table("b"); }),
            "some.toml:1: b: it is the whole number 1; allowed: a table");
  EXPECT_EQ(refusal_of("b = [1]", [](const Config& c) { c.tables("b"); }),
            "some.toml:1: b: an element is the whole number 1; allowed: tables");
  EXPECT_EQ(refusal_of("[t]\n[t.u]\n", [](const Config& c) { c.table("t").table("u").text("x"); }),
            "some.toml:2: t.u.x: it is missing; allowed: text");
  EXPECT_EQ(refusal_of("b = \"rign\"", [](const Config& c) { c.choice("b", {"ring", "ulysses"}); }),
            "some.toml:1: b: unknown value 'rign' (did you mean 'ring'?); allowed: ring, ulysses");
}

TEST(Config, RefusesSizesThatAreNone) {
  const auto read = [](const Config& config) { config.size("n", 1); };
  for (const char* size : {"\"64Q\"", "\"\"", "\"K\"", "\"1 K\"", "\"-1K\"", "0", "-5", "1.5",
                           "\"99999999999999999999\"", "\"9223372036854775807K\""}) {
    EXPECT_EQ(refusal_of(std::string("n = ") + size, read).find("some.toml:1: n: it is "), 0u)
        << size;
  }
}

TEST(Config, RefusesKeysThatNobodyAskedFor) {
  EXPECT_EQ(refusal_of("tokens = 1\ntokns = 2\n",
                       [](const Config& c) {
                         c.integer("tokens", 0, 9);
                         c.finish();
                       }),
            "some.toml:2: tokns: unknown key (did you mean 'tokens'?); allowed: tokens");
  EXPECT_EQ(refusal_of("[a]\nx = 1\n[[b]]\ny = 1\n[[b]]\nz = 1\n",
                       [](const Config& c) {
                         c.table("a").integer("x", 0, 9);
                         for (const Config& row : c.tables("b")) row.integer("y", 0, 9, 0);
                         c.finish();
                       }),
            "some.toml:6: b[1].z: unknown key (did you mean 'y'?); allowed: y");
  EXPECT_EQ(refusal_of("[a]\nx = 1\n", [](const Config& c) { c.finish(); }),
            "some.toml:1: a: unknown key; allowed: none");
  EXPECT_EQ(refusal_of("x = 1\ny = 2\n",
                       [](const Config& c) {
                         c.integer("x", 0, 9);
                         c.has("y");
                         c.finish();
                       }),
            "some.toml:2: y: it has no effect here; allowed: x");
}

TEST(Config, CopiesShareWhatHasBeenAskedFor) {
  const Config config = parse_config("[a]\nx = 1\n", "some.toml");
  const Config copy = config;
  copy.table("a").integer("x", 0, 9);
  config.finish();
}

TEST(Config, NamesTheLineOfWhatIsNotToml) {
  const auto parse = [](const std::string& text) {
    return refusal([&] { parse_config(text, "some.toml"); });
  };
  EXPECT_EQ(parse("a = 1\na = 2\n").find("some.toml:2: it is not TOML: "), 0u);
  EXPECT_EQ(parse("a = 1\n\nb = [1,\n").find("some.toml:"), 0u);
  EXPECT_EQ(parse("\n[{}]\n").find("some.toml:2: it is not TOML: "), 0u);
  EXPECT_EQ(parse(std::string(70000, '#')), "some.toml:1: it has 70000 bytes; allowed: 65536");
  for (const std::string& text : {std::string("a = \"\x01\""), std::string("\xff\xfe"),
                                  std::string("a\0 = 1", 6), std::string("\r\r = \n")}) {
    EXPECT_EQ(parse(text).find_first_of("\r\n"), std::string::npos);
    EXPECT_EQ(parse(text).find("some.toml:"), 0u) << text;
  }
}

TEST(Config, IsWrittenInAscii) {
  EXPECT_EQ(refusal([] { parse_config("a = 1\nb = \xc3\xa9", "some.toml"); }),
            "some.toml:2: it has a character outside ASCII; allowed: \\u escapes in text");
  EXPECT_EQ(parse_config("a = \"\\u00e9\"", "some.toml").text("a"), "\xc3\xa9");
}

// Destroyed recursively: unbounded, they would exhaust the stack.
TEST(Config, BoundsHowDeepKeysNest) {
  std::string deep = "a";
  for (int i = 0; i < 64; ++i) deep += ".a";
  EXPECT_TRUE(parse_config(deep + " = 1\n" + "b" + deep + " = 1", "some.toml").has("a"));
  EXPECT_EQ(refusal([&] { parse_config("x = 1\n" + deep + ".a = 1", "some.toml"); }),
            "some.toml:2: it has too many dots; allowed: 64 in a line");
  std::string nested = "1";
  for (int i = 0; i < 120; ++i) nested = "[\n{" + deep + " = " + nested + "}]";
  EXPECT_TRUE(parse_config("a = " + nested, "some.toml").has("a"));
}

TEST(Config, NamesFilesThatCannotBeRead) {
  EXPECT_EQ(refusal([] { load_config("/nowhere/some.toml"); }),
            "/nowhere/some.toml: cannot open it: No such file or directory");
  EXPECT_EQ(refusal([] { load_config("/tmp"); }), "/tmp: it is not a regular file");
  EXPECT_EQ(refusal([] { load_config("/dev/zero"); }), "/dev/zero: it is not a regular file");
}

TEST(Nearest, FindsTheLikelyWordAndNothingElse) {
  EXPECT_EQ(nearest("rign", {"ring", "ulysses"}), "ring");
  EXPECT_EQ(nearest("xylophone", {"ring", "ulysses"}), "");
}

}  // namespace
}  // namespace sp
