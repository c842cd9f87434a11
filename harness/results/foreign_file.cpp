// SPDX-License-Identifier: Apache-2.0
#include "harness/results/foreign_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <fstream>

namespace sp {
namespace {

// Processor time for the child, in seconds: a hundred times what reading takes, where a damaged
// file may loop for ever. Data can inflate a thousandfold, so a small file is given more per byte.
std::int64_t seconds_for(std::int64_t file_bytes) {
  return 1 + std::min<std::int64_t>(60, file_bytes >> 18) + (file_bytes >> 24);
}
constexpr std::int64_t kLeastMemory = std::int64_t{1} << 30;
constexpr std::size_t kLongestComplaint = 2000;  // names in a damaged file may be of any length

#ifdef SP_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// The first byte of what the child says; the rest is the message.
enum Verdict : char { kRead = 'r', kRefused = 'u', kEnvironmentFailed = 'e', kBroken = 'i' };

Verdict verdict_of(ErrorKind kind) {
  if (kind == ErrorKind::kUsage) return kRefused;
  return kind == ErrorKind::kEnvironment ? kEnvironmentFailed : kBroken;
}

void limit(int resource, std::int64_t value) {
  rlimit both{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &both);
  both.rlim_cur = std::min(static_cast<rlim_t>(value), both.rlim_max);
  ::setrlimit(static_cast<__rlimit_resource>(resource), &both);
}

// Half of the machine beyond what the process uses already. Sanitizers reserve terabytes of address
// space, so with them there is no limit.
void limit_memory() {
  std::int64_t pages = 0;
  if (kSanitized || !(std::ifstream("/proc/self/statm") >> pages)) return;
  const std::int64_t page_bytes = ::sysconf(_SC_PAGESIZE);
  const std::int64_t half = ::sysconf(_SC_PHYS_PAGES) / 2 * page_bytes;
  limit(RLIMIT_AS, pages * page_bytes + std::max(kLeastMemory, half));
}

void say(int descriptor, Verdict verdict, const std::string& message) {
  const std::string text = static_cast<char>(verdict) + message;
  for (std::size_t said = 0; said < text.size();) {
    const ssize_t count = ::write(descriptor, text.data() + said, text.size() - said);
    if (count < 0 && errno != EINTR) return;
    said += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
  }
}

[[noreturn]] void run_child(int descriptor, std::int64_t file_bytes,
                            const std::function<void()>& read) {
  // A crash here is an answer, not an accident: no handlers, no core file, no noise.
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU, SIGTERM, SIGINT}) {
    std::signal(signal, SIG_DFL);
  }
  std::signal(SIGPIPE, SIG_IGN);
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(null, STDERR_FILENO);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, seconds_for(file_bytes));
  limit_memory();
  try {
    const HeapTexts texts;
    read();
    say(descriptor, kRead, texts.record());
  } catch (const Error& error) {
    say(descriptor, verdict_of(error.kind()),
        std::string(error.what()).substr(0, kLongestComplaint));
  } catch (const std::exception& error) {
    say(descriptor, kRefused,
        fmt::format("cannot read it within the memory limit ({})", error.what()));
  }
  ::_exit(0);
}

std::string listen(int descriptor) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

std::int64_t regular_file_size(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) {
    throw Error(ErrorKind::kUsage, fmt::format("cannot open it: {}", std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::kUsage, "it is not a regular file");
  return status.st_size;
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

std::string probe_in_child(std::int64_t file_bytes, const std::function<void()>& read) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Error(ErrorKind::kEnvironment,
                fmt::format("cannot open a pipe: {}", std::strerror(errno)));
  }
  const pid_t child = ::fork();
  if (child == 0) run_child(ends[1], file_bytes, read);
  const int fork_error = errno;
  ::close(ends[1]);
  const std::string answer = child > 0 ? listen(ends[0]) : "";
  ::close(ends[0]);
  if (child < 0) {
    throw Error(ErrorKind::kEnvironment,
                fmt::format("cannot start a process to read it: {}", std::strerror(fork_error)));
  }
  // The answer decides, not the status: the caller's program may have claimed its children.
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  const std::string message = answer.empty() ? "" : answer.substr(1);
  switch (answer.empty() ? '\0' : answer[0]) {
    case kRead:
      return message;
    case kRefused:
      throw Error(ErrorKind::kUsage, message);
    case kEnvironmentFailed:
      throw Error(ErrorKind::kEnvironment, message);
    case kBroken:
      throw Error(ErrorKind::kInternal, message);
    default:
      throw Error(ErrorKind::kUsage, "the file is corrupt: the HDF5 library fails on it");
  }
}

}  // namespace sp
