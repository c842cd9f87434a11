// Matching, sleeping and failing among the threads of one world.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/thread/thread_board.hpp"

#include <fmt/format.h>

#include <new>
#include <utility>

#include "optimized/comm/host_buffer.hpp"
#include "optimized/comm/thread/thread_report.hpp"

namespace sp {
namespace {

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

}  // namespace

ThreadTransfer::ThreadTransfer(std::shared_ptr<ThreadBoard> board, std::int64_t communicator,
                               const Channel& channel, int rank, std::size_t parts)
    : board_(std::move(board)),
      communicator_(communicator),
      channel_(channel),
      rank_(rank),
      parts_(parts),
      undone_(parts) {}

ThreadTransfer::~ThreadTransfer() { withdraw(); }

void ThreadTransfer::withdraw() {
  if (!done()) board_->withdraw(*this);
}

void ThreadTransfer::bring(Part& received, ThreadTransfer&, Part& sent) {
  copy_bytes(received.data, sent.data);
}

ThreadBoard::ThreadBoard(int ranks, std::chrono::milliseconds time_limit)
    : time_limit_(time_limit), mailboxes_(index(ranks)), desks_(index(ranks)) {}

ThreadBoard::Key ThreadBoard::key_of(const ThreadTransfer& transfer, const Part& part) {
  return {transfer.communicator_, transfer.channel_.number,
          part.is_send ? transfer.rank_ : part.peer};
}

int ThreadBoard::destination_of(const ThreadTransfer& transfer, const Part& part) {
  return part.is_send ? part.peer : transfer.rank_;
}

void ThreadBoard::post(ThreadTransfer& transfer) {
  throw_if_failed(transfer.rank_);
  for (Part& part : transfer.parts_) {
    if (const auto mismatch = match(transfer, part)) {
      throw Error(ErrorKind::kInternal, *mismatch);
    }
  }
}

// Pairs the part with the oldest one of the opposite direction, or leaves it in the mailbox.
// Returns the words of a mismatch.
std::optional<std::string> ThreadBoard::match(ThreadTransfer& transfer, Part& part) {
  Mailbox& mailbox = mailboxes_[index(destination_of(transfer, part))];
  const std::lock_guard lock(mailbox.mutex);
  const auto place = mailbox.posted.try_emplace(key_of(transfer, part)).first;
  std::deque<Posted>& queue = place->second;
  if (queue.empty() || queue.front().part->is_send == part.is_send) {
    queue.push_back({&transfer, &part});
    return std::nullopt;
  }
  const Posted other = queue.front();
  const Posted mine{&transfer, &part};
  const Posted& sent = part.is_send ? mine : other;
  const Posted& received = part.is_send ? other : mine;
  if (!matches(sent.part->envelope, received.part->envelope)) {
    return describe_mismatch(sent.transfer->rank_, sent.part->envelope, received.transfer->rank_,
                             received.part->envelope);
  }
  queue.pop_front();
  if (queue.empty()) mailbox.posted.erase(place);
  received.transfer->bring(*received.part, *sent.transfer, *sent.part);
  complete(other);
  complete(mine);
  return std::nullopt;
}

// Called under the mailbox lock. Once the count is down, the owner may destroy the transfer.
void ThreadBoard::complete(const Posted& posted) {
  const int owner = posted.transfer->rank_;
  posted.part->done.store(true, std::memory_order_release);
  if (posted.transfer->undone_.fetch_sub(1, std::memory_order_acq_rel) == 1) signal(owner);
}

// Every mailbox of the transfer is visited, even where the part is done: a peer may still be inside
// complete(), and its lock tells when it has left.
void ThreadBoard::withdraw(ThreadTransfer& transfer) {
  for (Part& part : transfer.parts_) {
    Mailbox& mailbox = mailboxes_[index(destination_of(transfer, part))];
    const std::lock_guard lock(mailbox.mutex);
    const auto place = mailbox.posted.find(key_of(transfer, part));
    if (place == mailbox.posted.end()) continue;
    std::erase_if(place->second, [&](const Posted& posted) { return posted.part == &part; });
    if (place->second.empty()) mailbox.posted.erase(place);
  }
}

void ThreadBoard::signal(int rank) {
  Desk& desk = desks_[index(rank)];
  const std::lock_guard lock(desk.mutex);
  ++desk.events;
  desk.changed.notify_one();  // only the rank itself ever waits here
}

std::uint64_t ThreadBoard::events(int rank) {
  Desk& desk = desks_[index(rank)];
  const std::lock_guard lock(desk.mutex);
  return desk.events;
}

void ThreadBoard::sleep(int rank, ThreadTransfer& transfer, std::uint64_t seen,
                        std::chrono::steady_clock::time_point deadline) {
  // Both are signalled after they are set, so that whatever these checks miss ends the sleep.
  throw_if_failed(rank);
  check_finished_peers(rank, transfer);
  Desk& desk = desks_[index(rank)];
  std::unique_lock lock(desk.mutex);
  desk.waits_for = &transfer;
  const bool woken = desk.changed.wait_until(lock, deadline, [&] { return desk.events != seen; });
  if (!woken) {
    lock.unlock();
    report_time_out(rank);
    lock.lock();
  }
  desk.waits_for = nullptr;
  lock.unlock();
  if (!woken) throw_if_failed(rank);
}

// A finished rank has posted all it ever will.
void ThreadBoard::check_finished_peers(int rank, ThreadTransfer& transfer) {
  for (const Part& part : transfer.parts_) {
    // In this order: what the peer posted before it finished has been matched before.
    if (!desks_[index(part.peer)].finished.load(std::memory_order_acquire)) continue;
    if (part.done.load(std::memory_order_acquire)) continue;
    throw Error(ErrorKind::kEnvironment,
                fmt::format("rank {} has finished, but rank {} still waits {}", part.peer, rank,
                            describe_wait(part.is_send, part.peer, part.envelope)));
  }
}

std::int64_t ThreadBoard::communicator_id(std::int64_t parent, std::int64_t split, int colour) {
  const std::lock_guard lock(ids_mutex_);
  const auto next = static_cast<std::int64_t>(ids_.size()) + 1;  // 0 is the world
  return ids_.try_emplace({parent, split, colour}, next).first->second;
}

void ThreadBoard::finish(int rank) {
  desks_[index(rank)].finished.store(true, std::memory_order_release);
  for (int other = 0; other < size(); ++other) signal(other);
}

ThreadBoard::Failure ThreadBoard::failure_from(int rank, const std::exception_ptr& reason) {
  try {
    std::rethrow_exception(reason);
  } catch (const Error& error) {
    return {rank, error.kind(), error.what(), nullptr};
  } catch (const std::bad_alloc& error) {
    return {rank, ErrorKind::kEnvironment, error.what(), nullptr};
  } catch (const std::exception& error) {
    return {rank, ErrorKind::kInternal, error.what(), nullptr};
  } catch (...) {
    return {rank, ErrorKind::kInternal, "an exception of unknown type", reason};
  }
}

void ThreadBoard::fail(int rank, std::exception_ptr reason) { fail(failure_from(rank, reason)); }

void ThreadBoard::fail(Failure failure) {
  {
    const std::lock_guard lock(failure_mutex_);
    if (failure_) return;
    failure_ = std::move(failure);
    failed_.store(true, std::memory_order_release);
  }
  for (int rank = 0; rank < size(); ++rank) signal(rank);
}

void ThreadBoard::throw_if_failed(int rank) const {
  if (!failed_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(failure_mutex_);
  if (failure_->rank == rank) throw Error(failure_->kind, failure_->text);
  throw Error(ErrorKind::kEnvironment,
              fmt::format("rank {} failed: {}", failure_->rank, failure_->text));
}

void ThreadBoard::rethrow_failure() const {
  const std::lock_guard lock(failure_mutex_);
  if (!failure_) return;
  if (failure_->foreign) std::rethrow_exception(failure_->foreign);
  throw Error(failure_->kind, fmt::format("rank {}: {}", failure_->rank, failure_->text));
}

void ThreadBoard::report_time_out(int rank) {
  const std::lock_guard lock(report_mutex_);
  if (failed_.load(std::memory_order_acquire)) return;
  fail({rank, ErrorKind::kEnvironment, describe_all_ranks(), nullptr});
}

std::string ThreadBoard::describe_all_ranks() {
  RankReport report(time_limit_);
  for (int rank = 0; rank < size(); ++rank) {
    Desk& desk = desks_[index(rank)];
    const std::lock_guard lock(desk.mutex);
    if (desk.finished.load(std::memory_order_acquire)) {
      report.add_finished(rank);
    } else if (desk.waits_for == nullptr) {
      report.add_silent(rank);
    } else {
      report.add_waiting(rank, desk.waits_for->parts_);
    }
  }
  return report.text();
}

}  // namespace sp
