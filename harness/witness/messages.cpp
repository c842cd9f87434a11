// SPDX-License-Identifier: Apache-2.0
#include "harness/witness/messages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

using Content = MessageBoard::Content;

double element(const Content& content, std::size_t i) {
  return visit_dtype(content.dtype, [&]<class T>() {
    return static_cast<double>(widen(reinterpret_cast<const T*>(content.bytes.data())[i]));
  });
}

std::size_t elements(const Content& content) {
  return content.bytes.size() / size_of(content.dtype);
}

std::size_t differing(const Content& a, const Content& b) {
  std::size_t count = 0;
  const std::size_t width = size_of(a.dtype);
  for (std::size_t i = 0; i + width <= a.bytes.size() && i + width <= b.bytes.size(); i += width)
    count += std::equal(&a.bytes[i], &a.bytes[i] + width, &b.bytes[i]) ? 0 : 1;
  return count;
}

// Of a sum over ranks, in any order.
std::size_t unsummed(const std::vector<const Content*>& parts, const Content& sum) {
  const double w = unit_roundoff(sum.dtype);
  std::size_t count = 0;
  for (std::size_t i = 0; i < elements(sum); ++i) {
    double expected = 0, size = 0;
    for (const Content* part : parts) {
      expected += element(*part, i);
      size += std::fabs(element(*part, i));
    }
    const double error = std::fabs(element(sum, i) - expected);
    count += error <= static_cast<double>(parts.size()) * w * size || std::isnan(expected) ? 0 : 1;
  }
  return count;
}

}  // namespace

Content MessageBoard::content_of(const Message& message) {
  Content content{message.data.dtype(),
                  {},
                  fmt::format("{} of step {}", message.label.tensor, message.label.step),
                  0};
  if (message.data.bytes() == 0) return content;
  const std::byte* first = first_byte(message.data, false);
  content.bytes.assign(first, first + message.data.bytes());
  return content;
}

void MessageBoard::join(const std::string& channel, int rank, int world_rank) {
  const std::lock_guard lock(mutex_);
  members_[channel][rank] = world_rank;
}

std::int64_t MessageBoard::send(const std::string& channel, int source, int target,
                                Content content) {
  const std::lock_guard lock(mutex_);
  Way& way = ways_[{channel, source, target}];
  way.sent.push_back(std::move(content));
  return std::ssize(way.sent) - 1;
}

std::int64_t MessageBoard::expect(const std::string& channel, int source, int target) {
  const std::lock_guard lock(mutex_);
  return ways_[{channel, source, target}].expected++;
}

void MessageBoard::arrived(const std::string& channel, int source, int target, std::int64_t number,
                           Content content) {
  const std::lock_guard lock(mutex_);
  ways_[{channel, source, target}].arrived[number] = std::move(content);
}

void MessageBoard::put(const std::string& channel, std::int64_t n, Pattern pattern, int root,
                       int rank, std::vector<Content> contents) {
  const std::lock_guard lock(mutex_);
  Collective& collective = collectives_[{channel, n}];
  collective.pattern = pattern;
  collective.root = root;
  collective.in[rank] = std::move(contents);
}

void MessageBoard::got(const std::string& channel, std::int64_t n, int rank,
                       std::vector<Content> contents) {
  const std::lock_guard lock(mutex_);
  collectives_[{channel, n}].out[rank] = std::move(contents);
}

int MessageBoard::world_rank(const std::string& channel, int rank) const {
  return members_.at(channel).at(rank);
}

MessageBoard::Wrong MessageBoard::wrong() const {
  const std::lock_guard lock(mutex_);
  Wrong wrong;
  for (const auto& [key, way] : ways_) {
    const auto& [channel, source, target] = key;
    for (const auto& [number, content] : way.arrived) {
      if (number >= std::ssize(way.sent)) continue;
      const Content& sent = way.sent[static_cast<std::size_t>(number)];
      const std::size_t count = differing(sent, content);
      if (count == 0 && sent.bytes.size() == content.bytes.size()) continue;
      wrong[content.when] =
          fmt::format("rank {}: message {} from rank {}: {} of {} elements are not what was sent",
                      world_rank(channel, target), content.label, world_rank(channel, source),
                      count, elements(sent));
    }
  }
  for (const auto& [key, collective] : collectives_) check(key.first, collective, wrong);
  return wrong;
}

void MessageBoard::check(const std::string& channel, const Collective& collective,
                         Wrong& wrong) const {
  const Pattern pattern = collective.pattern;
  const auto part = [&](int source, std::size_t i) -> const Content* {
    const auto found = collective.in.find(source);
    return found != collective.in.end() && i < found->second.size() ? &found->second[i] : nullptr;
  };
  for (const auto& [rank, contents] : collective.out) {
    const auto me = static_cast<std::size_t>(rank);
    for (std::size_t i = 0; i < contents.size(); ++i) {
      const Content& content = contents[i];
      std::size_t count = 0;
      std::string source;
      if (pattern == Pattern::kAllReduce || pattern == Pattern::kReduceScatter) {
        std::vector<const Content*> parts;
        for (const auto& [from, in] : collective.in)
          parts.push_back(part(from, pattern == Pattern::kAllReduce ? 0 : me));
        if (parts.size() != members_.at(channel).size() || std::ranges::count(parts, nullptr) > 0)
          continue;
        count = unsummed(parts, content);
        source = "summed over all ranks";
      } else {
        const int from = pattern == Pattern::kBroadcast ? collective.root : static_cast<int>(i);
        const Content* sent = part(from, pattern == Pattern::kAllToAll ? me : 0);
        if (sent == nullptr) continue;
        count = differing(*sent, content);
        source = fmt::format("from rank {}", world_rank(channel, from));
      }
      if (count == 0) continue;
      wrong.try_emplace(
          content.when,
          fmt::format("rank {}: message {} {}: {} of {} elements are not what they "
                      "should be",
                      world_rank(channel, rank), content.label, source, count, elements(content)));
    }
  }
}

}  // namespace sp
