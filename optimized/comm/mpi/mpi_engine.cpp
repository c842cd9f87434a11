// Polling with a back-off, and the protocol of a time-out.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/mpi/mpi_engine.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <exception>
#include <thread>
#include <utility>

namespace sp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWaiting = 1;  // subjects of notices
constexpr int kFailed = 2;
constexpr std::chrono::milliseconds kGrace{2000};  // for the others to answer
constexpr std::chrono::milliseconds kLead{500};  // in which the lowest rank speaks before any ends

// Ranks may share a core: let the others run. Only after a while take no turns at all, because MPI
// moves long messages in small pieces, each at a turn.
void back_off(Clock::duration quiet) {
  if (quiet < std::chrono::milliseconds(1)) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace

MpiEngine::MpiEngine() {
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &control_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_rank(control_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(control_, &size_), "MPI_Comm_size");
}

MpiEngine::~MpiEngine() { MPI_Comm_free(&control_); }

void MpiEngine::wait(MpiTransfer& transfer, std::chrono::milliseconds time_limit,
                     const std::function<void()>& advance) {
  const auto deadline = Clock::now() + time_limit;
  auto last_change = Clock::now();
  while (true) {
    try {
      if (progress()) last_change = Clock::now();
    } catch (const Error& error) {
      fail_everywhere(error);
    }
    advance();
    if (transfer.done()) return;
    listen();
    if (!waiting_.empty() || Clock::now() >= deadline) time_out(transfer, time_limit);
    back_off(Clock::now() - last_change);
  }
}

bool MpiEngine::progress() {
  bool changed = false;
  for (MpiTransfer* transfer : active_) changed = transfer->poll() || changed;
  std::erase_if(active_, [](MpiTransfer* transfer) { return transfer->done(); });
  return changed;
}

void MpiEngine::listen() {
  while (true) {
    int arrived = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control_, &arrived, &status), "MPI_Iprobe");
    if (arrived == 0) return;
    int length = 0;
    check_mpi(MPI_Get_count(&status, MPI_CHAR, &length), "MPI_Get_count");
    std::string text(static_cast<std::size_t>(length), ' ');
    check_mpi(MPI_Recv(text.data(), length, MPI_CHAR, status.MPI_SOURCE, status.MPI_TAG, control_,
                       MPI_STATUS_IGNORE),
              "MPI_Recv");
    if (status.MPI_TAG == kFailed) {
      throw Error(ErrorKind::kEnvironment,
                  fmt::format("rank {} failed: {}", status.MPI_SOURCE, text));
    }
    waiting_[status.MPI_SOURCE] = std::move(text);
  }
}

// Nobody waits for these sends: a rank that is gone cannot take them.
void MpiEngine::tell_all(int subject, const std::string& text) {
  const std::string& kept = told_.emplace_back(text);
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(kept.data(), static_cast<int>(kept.size()), MPI_CHAR, rank, subject,
                        control_, &request),
              "MPI_Isend");
    check_mpi(MPI_Request_free(&request), "MPI_Request_free");
  }
}

void MpiEngine::fail_everywhere(const Error& error) {
  tell_all(kFailed, error.what());
  throw error;
}

void MpiEngine::time_out(const MpiTransfer& transfer, std::chrono::milliseconds time_limit) {
  const std::string mine = transfer.describe_wait();
  fmt::print(stderr, "rank {} waits {}\n", rank_, mine);
  tell_all(kWaiting, mine);
  waiting_[rank_] = mine;
  auto end = Clock::now() + kGrace;
  const auto stay = [&] {
    while (Clock::now() < end) {
      listen();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  stay();
  const std::string text = describe_silence(time_limit);
  if (rank_ == waiting_.begin()->first) {
    fmt::print(stderr, "{}\n", text);
  } else {
    end += kLead;
    stay();
  }
  throw Error(ErrorKind::kEnvironment, text);
}

std::string MpiEngine::describe_silence(std::chrono::milliseconds time_limit) const {
  std::vector<int> silent;
  std::string lines;
  for (int rank = 0; rank < size_; ++rank) {
    const auto answer = waiting_.find(rank);
    if (answer == waiting_.end()) {
      silent.push_back(rank);
    } else {
      lines += fmt::format("\n  rank {} waits {}", rank, answer->second);
    }
  }
  const std::string who =
      silent.empty() ? "every rank waits for another"
                     : fmt::format("no sign of life from rank {}", fmt::join(silent, ", "));
  return fmt::format("the time limit of {} s has passed: {}{}",
                     static_cast<double>(time_limit.count()) / 1000.0, who, lines);
}

}  // namespace sp
