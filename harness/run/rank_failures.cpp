// SPDX-License-Identifier: Apache-2.0
#include "harness/run/rank_failures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "optimized/comm/peer_failure.hpp"

namespace sp {
namespace {

struct Reason {
  ErrorKind kind;
  bool of_a_peer;
  std::string text;
};

Reason current_reason() {
  try {
    throw;
  } catch (const PeerFailure& error) {
    return {error.kind(), true, error.what()};
  } catch (const Error& error) {
    return {error.kind(), false, error.what()};
  } catch (const std::bad_alloc& error) {
    return {ErrorKind::kEnvironment, false, error.what()};
  } catch (const std::exception& error) {
    return {ErrorKind::kInternal, false, error.what()};
  } catch (...) {
    return {ErrorKind::kInternal, false, "an exception of unknown type"};
  }
}

}  // namespace

void RankFailures::record(int rank) {
  const Reason reason = current_reason();
  const std::size_t line = std::min(reason.text.find('\n'), reason.text.size());
  const std::lock_guard lock(mutex_);
  flag_->store(true);
  const auto same = [&](const Failure& failure) { return failure.rank == rank; };
  if (std::any_of(failures_.begin(), failures_.end(), same)) return;
  failures_.push_back(
      {rank, reason.kind, reason.of_a_peer, reason.text.substr(0, line), reason.text.substr(line)});
}

void RankFailures::rethrow(const std::string& addition) const {
  const auto cause = std::find_if(failures_.begin(), failures_.end(),
                                  [](const Failure& failure) { return !failure.of_a_peer; });
  const Failure& first = cause == failures_.end() ? failures_.front() : *cause;
  std::string text = fmt::format("rank {}: {}{}", first.rank, first.first_line, first.in_flight);
  for (const Failure& other : failures_) {
    if (other.rank == first.rank) continue;
    if (first.of_a_peer) text += fmt::format("\nrank {}: {}", other.rank, other.first_line);
    if (!first.in_flight.empty()) text += other.in_flight;
  }
  throw Error(first.kind, text + addition);
}

}  // namespace sp
