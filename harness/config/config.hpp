// Configuration files: TOML read with the strictness of a type checker.
//
// Errors     Error(kUsage), one line: `file:line: key: what is wrong; allowed: ...`.
// Quantities Numbers with a unit are tables that say where they come from:
//            `bandwidth = { value = 25, unit = "GB/s", source = "HDR InfiniBand, 200 Gb/s" }`.
//            Units are decimal (GB = 1e9 bytes) but for KiB, MiB, GiB; the value arrives in bytes,
//            seconds, flops per second, or as a plain number (unit "1").
// Unknown    Keys that nobody asked for are refused by finish(), with the nearest known one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace sp {

// What a quantity measures; decides which units are allowed.
enum class Dimension : std::uint8_t { kBytes, kBandwidth, kSeconds, kFlopRate, kPure };

struct Quantity {
  double value = 0;    // in base units: B, B/s, s, flop/s, 1
  std::string unit;    // as written
  std::string source;  // never empty
  std::string key;     // full, e.g. "device.memory"
};

// One table of a file. Copies share what has been asked for.
class Config {
 public:
  bool has(const std::string& key) const;

  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& otherwise) const;
  std::string choice(const std::string& key, const std::vector<std::string>& allowed) const;
  bool flag(const std::string& key, bool otherwise) const;
  std::int64_t integer(const std::string& key, std::int64_t least, std::int64_t most) const;
  std::int64_t integer(const std::string& key, std::int64_t least, std::int64_t most,
                       std::int64_t otherwise) const;
  double number(const std::string& key, double least, double most) const;
  // A whole number or text with a binary suffix: 4096, "64K", "2M".
  std::int64_t size(const std::string& key, std::int64_t least) const;
  // Arrays have one element at least.
  std::vector<std::string> texts(const std::string& key) const;
  std::vector<std::int64_t> integers(const std::string& key, std::int64_t least,
                                     std::int64_t most) const;
  std::vector<std::int64_t> sizes(const std::string& key, std::int64_t least) const;
  Quantity quantity(const std::string& key, Dimension dimension, double least, double most) const;

  Config table(const std::string& key) const;                // an error where it is missing
  std::vector<Config> tables(const std::string& key) const;  // an array of tables; may be missing
  std::vector<std::string> keys() const;  // of this table; marks none of them as asked for

  // Refuses keys of this table and of its sub-tables that nobody asked for.
  void finish() const;
  // Throws the one-line error for a key of this table.
  [[noreturn]] void refuse(const std::string& key, const std::string& problem) const;

  const std::string& file() const;
  const std::string& verbatim() const;  // the whole file

 private:
  friend Config load_config(const std::string& path);
  friend Config parse_config(const std::string& text, const std::string& name);
  struct Node;
  explicit Config(std::shared_ptr<const Node> node) : node_(std::move(node)) {}
  std::shared_ptr<const Node> node_;
};

Config load_config(const std::string& path);
Config parse_config(const std::string& text, const std::string& name);

}  // namespace sp
