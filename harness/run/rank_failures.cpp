// SPDX-License-Identifier: Apache-2.0
#include "harness/run/rank_failures.hpp"

#include <fmt/format.h>

#include <new>

namespace sp {
namespace {

struct Reason {
  ErrorKind kind;
  std::string text;
};

Reason current_reason() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  } catch (const std::bad_alloc& error) {
    return {ErrorKind::kEnvironment, error.what()};
  } catch (const std::exception& error) {
    return {ErrorKind::kInternal, error.what()};
  } catch (...) {
    return {ErrorKind::kInternal, "an exception of unknown type"};
  }
}

}  // namespace

void RankFailures::record(int rank) {
  const Reason reason = current_reason();
  const std::lock_guard lock(mutex_);
  if (rank_ < 0) {
    rank_ = rank;
    kind_ = reason.kind;
    first_ = reason.text;
    flag_->store(true);
  } else if (rank != rank_) {
    const std::size_t in_flight = reason.text.find('\n');  // the first line says that we failed
    if (in_flight != std::string::npos) others_ += reason.text.substr(in_flight);
  }
}

void RankFailures::rethrow(const std::string& addition) const {
  const bool timed_out = first_.find('\n') != std::string::npos;
  throw Error(kind_,
              fmt::format("rank {}: {}{}{}", rank_, first_, timed_out ? others_ : "", addition));
}

}  // namespace sp
