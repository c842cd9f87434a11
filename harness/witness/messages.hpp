// What ranks sent and what arrived, matched as a communicator must match it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "optimized/comm/communicator.hpp"

namespace sp {

class MessageBoard {
 public:
  struct Content {
    DType dtype = DType::kF32;
    std::vector<std::byte> bytes;
    std::string label;      // "k of step 1"
    std::int64_t when = 0;  // of arrival
  };
  static Content content_of(const Message& message);

  // A communicator is known by a name that its members share and its ranks by those of the world.
  void join(const std::string& channel, int rank, int world_rank);
  // Point to point. Both return the number of the message on its way from `source` to `target`.
  std::int64_t send(const std::string& channel, int source, int target, Content content);
  std::int64_t expect(const std::string& channel, int source, int target);
  void arrived(const std::string& channel, int source, int target, std::int64_t number,
               Content content);
  // Collectives: what a rank puts in and gets out of the n-th of a communicator.
  void put(const std::string& channel, std::int64_t n, Pattern pattern, int root, int rank,
           std::vector<Content> contents);
  void got(const std::string& channel, std::int64_t n, int rank, std::vector<Content> contents);

  // All that did not arrive as it should, by when it arrived.
  std::map<std::int64_t, std::string> wrong() const;

 private:
  struct Way {  // between two ranks of a communicator
    std::vector<Content> sent;
    std::int64_t expected = 0;
    std::map<std::int64_t, Content> arrived;
  };
  struct Collective {
    Pattern pattern = Pattern::kAllGather;
    int root = 0;
    std::map<int, std::vector<Content>> in, out;  // by rank
  };
  using Wrong = std::map<std::int64_t, std::string>;

  int world_rank(const std::string& channel, int rank) const;
  void check(const std::string& channel, const Collective& collective, Wrong& wrong) const;

  mutable std::mutex mutex_;
  std::map<std::string, std::map<int, int>> members_;
  std::map<std::tuple<std::string, int, int>, Way> ways_;
  std::map<std::pair<std::string, std::int64_t>, Collective> collectives_;
};

}  // namespace sp
