// Fibers: what the lanes of a block run on. One OS thread switches between them; the sanitizers are
// told, so that TSan takes every lane for a thread of its own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

namespace sp::emulator {

class Fiber {
 public:
  // The calling thread as one end of switches; belongs to it.
  Fiber();
  // A fiber with a stack of its own, above a guard page. Neighbouring indices get stacks whose hot
  // ends share no cache sets.
  explicit Fiber(int index);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber calls entry(), and ends in the fiber that it returns. What ran
  // here before is forgotten, its destructors with it.
  using Entry = Fiber& (*)();
  void prepare(Entry entry);
  // Abandons what runs here, if anything: nothing of it is left in the sanitizers' books.
  void reset();

  // Goes on in `to`; returns when somebody switches back.
  static void switch_over(Fiber& from, Fiber& to) { jump(from, to, false); }

 private:
  struct Transfer;
  static void jump(Fiber& from, Fiber& to, bool from_ends);
  static void enter(boost::context::detail::transfer_t arrival);
  static void arrive(boost::context::detail::transfer_t arrival);

  boost::context::detail::fcontext_t context_ = nullptr;
  Entry entry_ = nullptr;
  bool entered_ = false;          // and not ended
  std::byte* mapping_ = nullptr;  // guard page, stack; null: the calling thread
  const void* bottom_ = nullptr;  // of the stack
  std::size_t size_ = 0;
#ifdef SP_SANITIZE_ADDRESS
  void* fake_stack_ = nullptr;
#endif
#ifdef SP_SANITIZE_THREAD
  void* tsan_fiber_ = nullptr;
  int unseen_ = 0;  // guards of class Unseen that live here
#endif
};

// While it lives, TSan looks away from what this lane reads and writes: the machine's own books.
class Unseen {
 public:
#ifdef SP_SANITIZE_THREAD
  Unseen();
  ~Unseen();
#else
  Unseen() {}
#endif
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};

// What TSan learns of barriers: everything before a release is ordered before what follows the
// acquires of the same address.
void tsan_release(void* address);
void tsan_acquire(void* address);

}  // namespace sp::emulator
