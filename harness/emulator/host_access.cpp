// The host touched an address of a device: says which, and ends the program.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

#include "harness/emulator/memory.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

struct sigaction previous;

// Not safe for signals in general (it formats, and reads the map of blocks); but this signal comes
// from a plain load or store of the host's own code, and the program ends here.
void on_segv(int signal, siginfo_t* info, void* context) {
  const int ordinal = device_of(info->si_addr);
  if (ordinal >= 0) {
    const std::string line =
        fmt::format("the host touched memory of device {}: {}; copy it, or use a kernel\n", ordinal,
                    device(ordinal).memory().locate(info->si_addr));
    if (write(STDERR_FILENO, line.data(), line.size()) < 0) std::abort();
    std::abort();
  }
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal);
  } else {
    sigaction(SIGSEGV, &previous, nullptr);  // the access is repeated, and ends as it would have
  }
}

}  // namespace

void guard_arenas() {
  static std::once_flag once;
  std::call_once(once, [] {
    arena(0);
    struct sigaction action{};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous);
  });
}

}  // namespace sp::emulator
