// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/fiber.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <utility>

#ifdef SP_SANITIZE_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SP_SANITIZE_THREAD
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

// Of functions that two lanes run parts of.
#define SP_NOT_FOR_TSAN __attribute__((no_sanitize("thread")))

namespace sp::emulator {
namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

constexpr std::size_t kGuard = 4096;
#ifdef SP_SANITIZED
constexpr std::size_t kStack = 256 * 1024;
#else
constexpr std::size_t kStack = 64 * 1024;
#endif
// Stacks are used from their upper ends: 32 lanes with frames of a few cache lines fill one page.
constexpr std::size_t kColours = 32;
constexpr std::size_t kColourBytes = 128;

#ifdef SP_SANITIZE_THREAD
constinit thread_local int unseen_guards = 0;  // on the fiber that runs

void see() {
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#endif

}  // namespace

struct Fiber::Transfer {
  Fiber* from;
  Fiber* to;
};

Fiber::Fiber() {
#ifdef SP_SANITIZE_THREAD
  tsan_fiber_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(int index)
    : size_(kStack - static_cast<std::size_t>(index) % kColours * kColourBytes) {
  void* const mapping = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapping, kGuard, PROT_NONE);
  mapping_ = static_cast<std::byte*>(mapping);
  bottom_ = mapping_ + kGuard;
#ifdef SP_SANITIZE_THREAD
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  if (mapping_ == nullptr) return;
  reset();
#ifdef SP_SANITIZE_THREAD
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  munmap(mapping_, kGuard + kStack);
}

void Fiber::prepare(Entry entry) {
  entry_ = entry;
  context_ = make_fcontext(mapping_ + kGuard + size_, size_, &Fiber::enter);
}

SP_NOT_FOR_TSAN void Fiber::reset() {
  if (!std::exchange(entered_, false)) return;
#ifdef SP_SANITIZE_ADDRESS
  __asan_unpoison_memory_region(bottom_, size_);
  fake_stack_ = nullptr;
#endif
#ifdef SP_SANITIZE_THREAD
  void* const caller = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
  for (; unseen_ > 0; --unseen_) see();
  __tsan_switch_to_fiber(caller, 0);  // whatever the lane did is over
  __tsan_destroy_fiber(tsan_fiber_);
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

SP_NOT_FOR_TSAN void Fiber::arrive(transfer_t arrival) {
  const Transfer& transfer = *static_cast<Transfer*>(arrival.data);
  transfer.from->context_ = arrival.fctx;
#ifdef SP_SANITIZE_ADDRESS
  __sanitizer_finish_switch_fiber(transfer.to->fake_stack_, &transfer.from->bottom_,
                                  &transfer.from->size_);
#endif
}

// Calls from here return here, so the sanitizers' books of calls stay balanced.
SP_NOT_FOR_TSAN void Fiber::enter(transfer_t arrival) {
  Fiber& self = *static_cast<Transfer*>(arrival.data)->to;
  arrive(arrival);
  self.entered_ = true;
  Fiber& successor = self.entry_();
  self.entered_ = false;
  jump(self, successor, true);
  std::abort();  // nobody switches to a fiber that has ended
}

SP_NOT_FOR_TSAN void Fiber::jump(Fiber& from, Fiber& to, [[maybe_unused]] bool from_ends) {
  Transfer transfer{&from, &to};
#ifdef SP_SANITIZE_ADDRESS
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack_, to.bottom_, to.size_);
#endif
#ifdef SP_SANITIZE_THREAD
  from.unseen_ = unseen_guards;
  unseen_guards = to.unseen_;
  __tsan_switch_to_fiber(to.tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
  arrive(jump_fcontext(to.context_, &transfer));
}

#ifdef SP_SANITIZE_THREAD
SP_NOT_FOR_TSAN Unseen::Unseen() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  ++unseen_guards;
}
SP_NOT_FOR_TSAN Unseen::~Unseen() {
  --unseen_guards;
  see();
}
void tsan_release(void* address) { __tsan_release(address); }
void tsan_acquire(void* address) { __tsan_acquire(address); }
#else
void tsan_release(void*) {}
void tsan_acquire(void*) {}
#endif

}  // namespace sp::emulator
