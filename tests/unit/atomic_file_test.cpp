// Files appear complete or not at all, even when the disk is full.
//
// SPDX-License-Identifier: Apache-2.0
#include "harness/results/atomic_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>

#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

// A disk with this much room, as far as this process can tell.
class FullDisk {
 public:
  explicit FullDisk(rlim_t room) {
    std::signal(SIGXFSZ, SIG_IGN);  // write() then fails instead
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limited{room, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limited);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

template <class Write>
std::string complaint(Write write) {
  try {
    write();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kEnvironment);
    return error.what();
  }
  return "";
}

const std::vector<std::byte> kOld(100, std::byte{1});
const std::vector<std::byte> kNew(5000, std::byte{2});

TEST(AtomicFile, ReplacesWhatWasThere) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a");
  write_file_atomically(path, kOld);
  EXPECT_EQ(test::read_bytes(path), kOld);
  write_file_atomically(path, kNew);
  EXPECT_EQ(test::read_bytes(path), kNew);
  EXPECT_EQ(directory.count(), 1u);
}

TEST(AtomicFile, HasThePermissionsOfAnyNewFile) {
  const test::TemporaryDirectory directory;
  const mode_t before = ::umask(027);
  write_file_atomically(directory.file("a"), kOld);
  ::umask(before);
  struct stat status{};
  ASSERT_EQ(::stat(directory.file("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST(AtomicFile, AFullDiskLeavesWhatWasThere) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("a");
  write_file_atomically(path, kOld);
  std::string what;
  {
    const FullDisk disk(1000);
    what = complaint([&] { write_file_atomically(path, kNew); });
  }
  EXPECT_EQ(what, path + ": cannot write: File too large");
  EXPECT_EQ(test::read_bytes(path), kOld);
  EXPECT_EQ(directory.count(), 1u);
}

TEST(AtomicFile, AFullDiskLeavesNoPartOfAProblemOrResult) {
  const test::TemporaryDirectory directory;
  const ProblemFile file = test::masked_problem(DType::kF32);
  const Outputs outputs = test::sample_outputs(file.problem);
  const Environment environment = capture_environment();
  for (const rlim_t room : std::initializer_list<rlim_t>{0, 1, 96, 1000, 2048, 5000, 9000}) {
    std::string problem, result;
    {
      const FullDisk disk(room);
      problem = complaint([&] { write_problem(directory.file("p"), file.problem, file.inputs); });
      result = complaint(
          [&] { write_result(directory.file("r"), file.problem, outputs, {}, environment); });
    }
    EXPECT_NE(problem.find("cannot write"), std::string::npos) << room << problem;
    EXPECT_NE(result.find("cannot write"), std::string::npos) << room << result;
    EXPECT_EQ(directory.count(), 0u) << room;
  }
}

TEST(AtomicFile, NamesWhatItCannotWriteTo) {
  const test::TemporaryDirectory directory;
  EXPECT_EQ(complaint([] { write_file_atomically("/dev/full", kOld); }),
            "/dev/full: cannot write: it exists and is not a regular file");
  EXPECT_EQ(complaint([&] { write_file_atomically(directory.path(), kOld); }),
            directory.path() + ": cannot write: it exists and is not a regular file");
  const std::string nowhere = directory.file("no/such/directory");
  EXPECT_EQ(complaint([&] { write_file_atomically(nowhere, kOld); }),
            nowhere + ": cannot write: No such file or directory");
}

}  // namespace
}  // namespace sp
