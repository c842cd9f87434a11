// TokenRing against rings that send the same bytes in other ways: times, and where they cross.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "harness/cluster/simulation.hpp"

namespace sp {

inline constexpr const char* kTokenRing = "token_ring/zigzag";
inline constexpr const char* kRing = "ring/zigzag";

enum class Passes : std::uint8_t { kForward, kBoth };
std::string name_of(Passes passes);  // "forward", "forward and backward"

// Simulated times of one machine, each setting once. NaN: does not run.
class Stopwatch {
 public:
  Stopwatch(Platform platform, std::int64_t heads, std::int64_t head_size);

  const Platform& platform() const { return platform_; }
  double seconds(const std::string& algorithm, int ranks, std::int64_t tokens,
                 std::int64_t key_heads, Passes passes);
  // How many times as long as TokenRing another algorithm takes.
  double advantage(const std::string& over, int ranks, std::int64_t tokens, std::int64_t key_heads,
                   Passes passes);
  // Mean bytes that a rank sends.
  double sent(const std::string& algorithm, int ranks, std::int64_t tokens, std::int64_t key_heads,
              Passes passes);

 private:
  using Key = std::tuple<std::string, int, std::int64_t, std::int64_t>;
  const Prediction& predict(const Key& key);

  Platform platform_;
  std::int64_t heads_, head_size_;
  std::map<Key, Prediction> known_;
};

// The lengths between which TokenRing is faster, by bisection between given ones to 2 %; none where
// it never is. An end that is the first or last given length is no crossing.
struct FasterRange {
  std::int64_t from = 0, to = 0;
  bool from_first = false, to_last = false;
};
std::optional<FasterRange> faster_range(Stopwatch& watch, const std::string& over, int ranks,
                                        const std::vector<std::int64_t>& lengths,
                                        std::int64_t key_heads, Passes passes);

}  // namespace sp
