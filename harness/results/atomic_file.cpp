// SPDX-License-Identifier: Apache-2.0
#include "harness/results/atomic_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& reason) {
  throw Error(ErrorKind::kEnvironment, fmt::format("{}: cannot write: {}", path, reason));
}

// The temporary file; removed unless it was renamed.
class Temporary {
 public:
  explicit Temporary(const std::filesystem::path& target)
      : target_(target.string()),
        name_((target.parent_path() / fmt::format(".{}.XXXXXX", target.filename().string()))
                  .string()) {
    descriptor_ = ::mkostemp(name_.data(), O_CLOEXEC);
    if (descriptor_ < 0) fail(target_, std::strerror(errno));
    // mkostemp() is private to its owner; a result has the permissions of any other new file.
    const mode_t mask = ::umask(0);
    ::umask(mask);
    ::fchmod(descriptor_, 0666 & ~mask);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!renamed_) ::unlink(name_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) fail(target_, std::strerror(count == 0 ? ENOSPC : errno));
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }

  void rename() {
    // A network file system may report a full disk only here.
    if (::fsync(descriptor_) != 0) fail(target_, std::strerror(errno));
    if (::close(std::exchange(descriptor_, -1)) != 0) fail(target_, std::strerror(errno));
    if (::rename(name_.c_str(), target_.c_str()) != 0) fail(target_, std::strerror(errno));
    renamed_ = true;
  }

 private:
  std::string target_;
  std::string name_;
  int descriptor_ = -1;
  bool renamed_ = false;
};

// Renaming over a device such as /dev/stdout would replace the device.
void refuse_special(const std::string& path) {
  struct stat existing{};
  if (::stat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode)) {
    fail(path, "it exists and is not a regular file");
  }
}

}  // namespace

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  refuse_special(path);
  Temporary temporary{std::filesystem::path(path)};
  temporary.write(bytes);
  temporary.rename();
}

void require_writable(const std::string& path) {
  refuse_special(path);
  const Temporary temporary{std::filesystem::path(path)};
}

}  // namespace sp
