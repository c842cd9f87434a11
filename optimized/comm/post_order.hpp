// PostOrder: whether ranks post to their communicators in orders that agree.
//
// A rank's operations run one after the other on some machines, whatever their communicators. So if
// one rank posts A before B and another B before A, or three do so in a circle, each may wait for
// the next: threads and MPI let it pass, NCCL may hang.
//
// A meeting is what ranks wait for each other in: one message, or one collective. The posts of a
// rank order its meetings, and orders agree if no circle comes of all of them together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sp {

// What one rank posted, in order.
class PostLog {
 public:
  using Meeting = std::uint64_t;  // the same number on all ranks that meet
  struct Post {
    std::string what;
    std::vector<Meeting> meetings;
  };

  void add(std::string what, std::vector<Meeting> meetings) {
    if (!meetings.empty()) posts_.push_back({std::move(what), std::move(meetings)});
  }
  const std::vector<Post>& posts() const { return posts_; }

  std::string text() const;  // and back
  static PostLog of_text(std::string_view text);

 private:
  std::vector<Post> posts_;
};

// "" if the orders agree, else a shortest circle: "rank 0 posts A before B; rank 1 posts B before A".
std::string conflict(const std::vector<PostLog>& ranks);

}  // namespace sp
