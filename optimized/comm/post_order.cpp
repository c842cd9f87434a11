// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/post_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>
#include <optional>

namespace sp {
namespace {

// One meeting comes before another because a rank posts them so.
struct Edge {
  std::size_t from, to;
  int rank;
  std::size_t before, after;  // posts of the rank
};

class Graph {
 public:
  explicit Graph(const std::vector<PostLog>& ranks) {
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      const auto& posts = ranks[rank].posts();
      for (std::size_t i = 1; i < posts.size(); ++i) {
        for (const PostLog::Meeting from : posts[i - 1].meetings) {
          for (const PostLog::Meeting to : posts[i].meetings)
            add({node(from), node(to), static_cast<int>(rank), i - 1, i});
        }
      }
    }
  }

  // Those that remain when all that come after nobody are taken away, again and again: what is left
  // leads to circles or out of them.
  std::vector<bool> entangled() const {
    std::vector<std::size_t> before(edges_.size());
    for (const auto& edges : edges_) {
      for (const Edge& edge : edges) ++before[edge.to];
    }
    std::vector<bool> left(edges_.size(), true);
    std::deque<std::size_t> free;
    for (std::size_t node = 0; node < before.size(); ++node) {
      if (before[node] == 0) free.push_back(node);
    }
    for (; !free.empty(); free.pop_front()) {
      left[free.front()] = false;
      for (const Edge& edge : edges_[free.front()]) {
        if (--before[edge.to] == 0) free.push_back(edge.to);
      }
    }
    return left;
  }

  std::optional<std::vector<Edge>> shortest_circle() const {
    const std::vector<bool> candidates = entangled();
    std::optional<std::vector<Edge>> best;
    for (std::size_t start = 0; start < edges_.size(); ++start) {
      if (!candidates[start]) continue;
      auto circle = circle_through(start);
      if (circle && (!best || circle->size() < best->size())) best = std::move(circle);
      if (best && best->size() == 2) break;  // none is shorter
    }
    return best;
  }

 private:
  std::size_t node(PostLog::Meeting meeting) {
    const auto [found, fresh] = nodes_.try_emplace(meeting, edges_.size());
    if (fresh) edges_.emplace_back();
    return found->second;
  }
  void add(const Edge& edge) { edges_[edge.from].push_back(edge); }

  std::optional<std::vector<Edge>> circle_through(std::size_t start) const {
    std::map<std::size_t, Edge> came_by;
    std::deque<std::size_t> open{start};
    for (; !open.empty(); open.pop_front()) {
      for (const Edge& edge : edges_[open.front()]) {
        if (!came_by.try_emplace(edge.to, edge).second) continue;
        if (edge.to != start) {
          open.push_back(edge.to);
          continue;
        }
        std::vector<Edge> circle{edge};
        while (circle.back().from != start) circle.push_back(came_by.at(circle.back().from));
        std::ranges::reverse(circle);
        return circle;
      }
    }
    return std::nullopt;
  }

  std::map<PostLog::Meeting, std::size_t> nodes_;
  std::vector<std::vector<Edge>> edges_;  // by where they begin
};

}  // namespace

std::string PostLog::text() const {
  std::string text;
  for (const Post& post : posts_) {
    text += post.what;
    for (const Meeting meeting : post.meetings) text += fmt::format("\t{:x}", meeting);
    text += '\n';
  }
  return text;
}

PostLog PostLog::of_text(std::string_view text) {
  PostLog log;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    Post post{std::string(line.substr(0, line.find('\t'))), {}};
    line.remove_prefix(post.what.size());
    while (!line.empty()) {
      Meeting meeting = 0;
      const auto end = std::from_chars(line.data() + 1, line.data() + line.size(), meeting, 16).ptr;
      line.remove_prefix(static_cast<std::size_t>(end - line.data()));
      post.meetings.push_back(meeting);
    }
    log.posts_.push_back(std::move(post));
  }
  return log;
}

std::string conflict(const std::vector<PostLog>& ranks) {
  const auto circle = Graph(ranks).shortest_circle();
  if (!circle) return {};
  std::string text;
  for (std::size_t i = 0; i < circle->size();) {
    const Edge& first = (*circle)[i];
    while (i + 1 < circle->size() && (*circle)[i + 1].rank == first.rank) ++i;
    const Edge& last = (*circle)[i++];
    const auto& posts = ranks[static_cast<std::size_t>(first.rank)].posts();
    text += fmt::format("{}rank {} posts {} before {}", text.empty() ? "" : "; ", first.rank,
                        posts[first.before].what, posts[last.after].what);
  }
  return text;
}

}  // namespace sp
