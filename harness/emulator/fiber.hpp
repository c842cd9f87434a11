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

  // The next switch to this fiber calls entry(), which must never return. What ran here before is
  // forgotten, its destructors with it.
  void prepare(void (*entry)());
  // After an abandoned run: nothing of it is left in the sanitizers' books.
  void reset();

  // Goes on in `to`; returns when somebody switches back.
  static void switch_over(Fiber& from, Fiber& to, bool from_ends = false);

 private:
  struct Transfer;
  static void enter(boost::context::detail::transfer_t arrival);
  static void arrive(boost::context::detail::transfer_t arrival);

  boost::context::detail::fcontext_t context_ = nullptr;
  void (*entry_)() = nullptr;
  std::byte* mapping_ = nullptr;  // guard page, stack; null: the calling thread
  const void* bottom_ = nullptr;  // of the stack
  std::size_t size_ = 0;
  void* fake_stack_ = nullptr;  // of ASan
  void* tsan_fiber_ = nullptr;
};

// While it lives, TSan looks away from what this lane reads and writes: the machine's own books.
class Unseen {
 public:
#ifdef __SANITIZE_THREAD__
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
