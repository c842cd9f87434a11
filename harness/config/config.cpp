// SPDX-License-Identifier: Apache-2.0
#include "harness/config/config.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <string_view>

// A debug build would stop at malformed headers ("[{"), which the next line of the parser refuses.
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>

#include "harness/config/nearest.hpp"
#include "harness/config/units.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 10;
constexpr int kMostDots = 64;  // in a line

std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kUsage, one_line(message));
}

std::string describe(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return fmt::format("the text \"{}\"", node.ref<std::string>());
    case toml::node_type::integer:
      return fmt::format("the whole number {}", node.ref<std::int64_t>());
    case toml::node_type::floating_point:
      return fmt::format("the number {}", node.ref<double>());
    case toml::node_type::boolean:
      return node.ref<bool>() ? "true" : "false";
    default:
      return "a date or time";
  }
}

// What toml++ 3.3 does not survive. It bounds how deep values nest, but not dotted keys, and tables
// are destroyed recursively; and letters just above ASCII, where it skips blanks, are undefined.
void refuse_unsafe_text(const std::string& text, const std::string& name) {
  int line = 1, dots = 0;
  for (const char c : text) {
    if (c == '\n') {
      ++line;
      dots = 0;
    }
    if (static_cast<unsigned char>(c) >= 0x80) {
      fail(fmt::format("{}:{}: it has a character outside ASCII; allowed: \\u escapes in text",
                       name, line));
    }
    if (c == '.' && ++dots > kMostDots) {
      fail(
          fmt::format("{}:{}: it has too many dots; allowed: {} in a line", name, line, kMostDots));
    }
  }
}

template <class T>
std::string range(const char* what, T least, T most) {
  if (most >= std::numeric_limits<T>::max()) {
    if (least <= std::numeric_limits<T>::lowest()) return fmt::format("{}, finite", what);
    return fmt::format("{} of at least {}", what, least);
  }
  return fmt::format("{} from {} to {}", what, least, most);
}

std::string whole_numbers(std::int64_t least, std::int64_t most) {
  return range("a whole number", least, most);
}

std::string sizes_from(std::int64_t least) {
  return fmt::format("a whole number of at least {}, or text with K, M or G for powers of 1024",
                     least);
}

std::optional<std::int64_t> parse_size(const std::string& text) {
  std::int64_t value = 0, size = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (error != std::errc()) return std::nullopt;
  const std::string_view suffix(end, last);
  std::int64_t factor = 0;
  if (suffix.empty()) factor = 1;
  if (suffix == "K") factor = std::int64_t{1} << 10;
  if (suffix == "M") factor = std::int64_t{1} << 20;
  if (suffix == "G") factor = std::int64_t{1} << 30;
  if (factor == 0) return std::nullopt;
  return __builtin_mul_overflow(value, factor, &size) ? std::nullopt : std::optional(size);
}

std::optional<std::int64_t> to_size(const toml::node& node) {
  if (const auto* text = node.as_string()) return parse_size(text->get());
  if (const auto* value = node.as_integer()) return value->get();
  return std::nullopt;
}

std::vector<std::string> names(const std::map<std::string, double>& units) {
  std::vector<std::string> all;
  for (const auto& [name, factor] : units) all.push_back(name);
  return all;
}

}  // namespace

struct Config::Node {
  // Which keys of one table were looked for, and which of them were also read.
  struct Interest {
    std::set<std::string> known, read;
  };
  struct Document {
    std::string file, text;
    toml::table root;
    std::map<const toml::table*, Interest> interests;
  };

  std::shared_ptr<Document> document;
  const toml::table* table;
  std::string prefix;  // "device." of the keys of [device]

  Config child(const toml::table& inner, const std::string& path) const {
    return Config(std::make_shared<const Node>(Node{document, &inner, path + "."}));
  }
  Interest& interest() const { return document->interests[table]; }
  const toml::node* find(const std::string& key) const {
    interest().known.insert(key);
    return table->get(key);
  }
  const toml::node& read(const std::string& key, const std::string& allowed) const {
    const toml::node* const found = find(key);
    if (found == nullptr) {
      refuse(key, fmt::format("it is missing{}; allowed: {}", misspelt(key), allowed));
    }
    interest().read.insert(key);
    return *found;
  }
  // A missing key may stand there with a slip of one or two letters.
  std::string misspelt(const std::string& key) const {
    constexpr std::size_t kSlips = 2;
    std::vector<std::string> strangers;
    for (const auto& [name, node] : *table) {
      if (!interest().known.contains(std::string(name.str()))) strangers.emplace_back(name.str());
    }
    const std::string near = nearest(key, strangers, kSlips);
    if (near.empty()) return "";
    return fmt::format(" (is '{}' in line {} meant for it?)", near,
                       table->get(near)->source().begin.line);
  }
  [[noreturn]] void refuse(const std::string& key, const std::string& problem) const {
    const toml::node* const found = table->get(key);
    const auto line = (found != nullptr ? found->source() : table->source()).begin.line;
    fail(fmt::format("{}:{}: {}{}: {}", document->file, line, prefix, key, problem));
  }
  [[noreturn]] void refuse_value(const std::string& key, const toml::node& node,
                                 const std::string& allowed) const {
    refuse(key, fmt::format("it is {}; allowed: {}", describe(node), allowed));
  }
  // Every element converted, or the error that says which is wrong.
  template <class Convert>
  auto elements(const std::string& key, const std::string& allowed, Convert convert) const {
    const toml::node& node = read(key, fmt::format("an array, each {}", allowed));
    const toml::array* const array = node.as_array();
    if (array == nullptr) refuse_value(key, node, fmt::format("an array, each {}", allowed));
    if (array->empty()) {
      refuse(key, fmt::format("it is empty; allowed: one element or more, each {}", allowed));
    }
    std::vector<typename decltype(convert(node))::value_type> all;
    for (const toml::node& element : *array) {
      const auto value = convert(element);
      if (!value) {
        refuse(key, fmt::format("an element is {}; allowed: each {}", describe(element), allowed));
      }
      all.push_back(*value);
    }
    return all;
  }
  void finish() const {
    const Interest& seen = interest();
    for (const auto& [name, node] : *table) {
      const std::string key(name.str());
      if (!seen.read.contains(key)) refuse_unread(key, seen);
      if (const auto* inner = node.as_table()) Node{document, inner, prefix + key + "."}.finish();
      if (const auto* array = node.as_array()) {
        for (std::size_t i = 0; i < array->size(); ++i) {
          const auto* inner = array->get(i)->as_table();
          if (inner == nullptr) break;
          Node{document, inner, fmt::format("{}{}[{}].", prefix, key, i)}.finish();
        }
      }
    }
  }
  [[noreturn]] void refuse_unread(const std::string& key, const Interest& seen) const {
    const std::vector<std::string> allowed(seen.read.begin(), seen.read.end());
    if (seen.known.contains(key)) {
      refuse(key, fmt::format("it has no effect here; allowed: {}", fmt::join(allowed, ", ")));
    }
    const std::vector<std::string> known(seen.known.begin(), seen.known.end());
    const std::string near = nearest(key, known);
    refuse(key, fmt::format("unknown key{}; allowed: {}",
                            near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near),
                            known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
  }
};

bool Config::has(const std::string& key) const { return node_->find(key) != nullptr; }

std::string Config::text(const std::string& key) const {
  const toml::node& node = node_->read(key, "text");
  if (!node.is_string()) node_->refuse_value(key, node, "text");
  return node.ref<std::string>();
}

std::string Config::text(const std::string& key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}

std::string Config::choice(const std::string& key, const std::vector<std::string>& allowed) const {
  const std::string list = fmt::format("{}", fmt::join(allowed, ", "));
  const toml::node& node = node_->read(key, list);
  const auto* const text = node.as_string();
  if (text == nullptr) node_->refuse_value(key, node, list);
  for (const std::string& word : allowed) {
    if (word == text->get()) return word;
  }
  const std::string near = nearest(text->get(), allowed);
  node_->refuse(key,
                fmt::format("unknown value '{}'{}; allowed: {}", text->get(),
                            near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near), list));
}

bool Config::flag(const std::string& key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const toml::node& node = node_->read(key, "");
  if (!node.is_boolean()) node_->refuse_value(key, node, "true, false");
  return node.ref<bool>();
}

std::int64_t Config::integer(const std::string& key, std::int64_t least, std::int64_t most) const {
  const std::string allowed = whole_numbers(least, most);
  const toml::node& node = node_->read(key, allowed);
  const auto* const value = node.as_integer();
  if (value == nullptr || value->get() < least || value->get() > most) {
    node_->refuse_value(key, node, allowed);
  }
  return value->get();
}

std::int64_t Config::integer(const std::string& key, std::int64_t least, std::int64_t most,
                             std::int64_t otherwise) const {
  return has(key) ? integer(key, least, most) : otherwise;
}

double Config::number(const std::string& key, double least, double most) const {
  const std::string allowed = range("a number", least, most);
  const toml::node& node = node_->read(key, allowed);
  const double value = node.is_number() ? *node.value<double>() : std::nan("");
  if (!std::isfinite(value) || value < least || value > most) {
    node_->refuse_value(key, node, allowed);
  }
  return value;
}

std::int64_t Config::size(const std::string& key, std::int64_t least) const {
  const std::string allowed = sizes_from(least);
  const toml::node& node = node_->read(key, allowed);
  const auto value = to_size(node);
  if (!value || *value < least) node_->refuse_value(key, node, allowed);
  return *value;
}

std::vector<std::string> Config::texts(const std::string& key) const {
  return node_->elements(key, "a text",
                         [](const toml::node& node) { return node.value_exact<std::string>(); });
}

std::vector<std::int64_t> Config::integers(const std::string& key, std::int64_t least,
                                           std::int64_t most) const {
  return node_->elements(key, whole_numbers(least, most), [&](const toml::node& node) {
    const auto value = node.value_exact<std::int64_t>();
    return value && *value >= least && *value <= most ? value : std::nullopt;
  });
}

std::vector<std::int64_t> Config::sizes(const std::string& key, std::int64_t least) const {
  return node_->elements(key, sizes_from(least), [&](const toml::node& node) {
    const auto value = to_size(node);
    return value && *value >= least ? value : std::nullopt;
  });
}

Quantity Config::quantity(const std::string& key, Dimension dimension, double least,
                          double most) const {
  const std::vector<std::string> known = names(units_of(dimension));
  const std::string shape = fmt::format(
      "{{ value = number, unit = \"{}\", source = \"where it is from\" }}", known.front());
  const toml::node& node = node_->read(key, shape);
  if (!node.is_table()) node_->refuse_value(key, node, shape);
  const Config parts = node_->child(*node.as_table(), node_->prefix + key);
  const std::string unit = parts.choice("unit", known);
  const double written = parts.number("value", -std::numeric_limits<double>::infinity(),
                                      std::numeric_limits<double>::infinity());
  const double value = written * units_of(dimension).at(unit);
  if (!std::isfinite(value) || value < least || value > most) {
    parts.refuse("value",
                 fmt::format("it is {}{}; allowed: {}{}", written, unit == "1" ? "" : " " + unit,
                             range("a quantity", least, most), base_unit(dimension)));
  }
  const std::string source = parts.text("source");
  if (source.find_first_not_of(" \t") == std::string::npos) {
    parts.refuse("source", "it is empty; allowed: a data sheet, paper, measurement or fit by name");
  }
  return {value, unit, source, node_->prefix + key};
}

Config Config::table(const std::string& key) const {
  const toml::node& node = node_->read(key, "a table");
  if (!node.is_table()) node_->refuse_value(key, node, "a table");
  return node_->child(*node.as_table(), node_->prefix + key);
}

std::vector<Config> Config::tables(const std::string& key) const {
  if (!has(key)) return {};
  const toml::node& node = node_->read(key, "");
  const toml::array* const array = node.as_array();
  if (array == nullptr) node_->refuse_value(key, node, "an array of tables");
  std::vector<Config> all;
  for (const toml::node& element : *array) {
    const toml::table* const inner = element.as_table();
    if (inner == nullptr) {
      node_->refuse(key, fmt::format("an element is {}; allowed: tables", describe(element)));
    }
    all.push_back(node_->child(*inner, fmt::format("{}{}[{}]", node_->prefix, key, all.size())));
  }
  return all;
}

std::vector<std::string> Config::keys() const {
  std::vector<std::string> all;
  for (const auto& [name, node] : *node_->table) all.emplace_back(name.str());
  return all;
}

void Config::finish() const { node_->finish(); }

void Config::refuse(const std::string& key, const std::string& problem) const {
  node_->refuse(key, problem);
}

const std::string& Config::file() const { return node_->document->file; }
const std::string& Config::verbatim() const { return node_->document->text; }

Config parse_config(const std::string& text, const std::string& name) {
  if (text.size() > kMostBytes) {
    fail(fmt::format("{}:1: it has {} bytes; allowed: {}", name, text.size(), kMostBytes));
  }
  refuse_unsafe_text(text, name);
  auto document = std::make_shared<Config::Node::Document>();
  document->file = name;
  document->text = text;
  try {
    document->root = toml::parse(std::string_view(document->text));
  } catch (const toml::parse_error& error) {
    fail(fmt::format("{}:{}: it is not TOML: {}", name, error.source().begin.line,
                     error.description()));
  }
  const toml::table* const root = &document->root;
  return Config(std::make_shared<const Config::Node>(Config::Node{std::move(document), root, ""}));
}

Config load_config(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) {
    fail(fmt::format("{}: cannot open it: {}", path, std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) fail(fmt::format("{}: it is not a regular file", path));
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(fmt::format("{}: cannot open it: {}", path, std::strerror(errno)));
  std::string text(kMostBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse_config(text, path);
}

}  // namespace sp
