// Damaged files: whatever bytes a file holds, reading it ends, in a problem or in one clean line.
//
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>

#include "reference/problem/error.hpp"
#include "tests/fuzz/read_bytes_as_problem.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

// With sanitizers a child process costs some 50 ms, without them 2 ms.
#ifdef SP_SANITIZED
constexpr int kMutants = 75;
constexpr std::size_t kStride = 37;
#else
constexpr int kMutants = 500;
constexpr std::size_t kStride = 3;
#endif
constexpr double kSecondsPerFile = 60;  // the child has 1 s of processor time; machines are shared

std::vector<std::vector<std::byte>> samples() {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("sample.h5");
  std::vector<std::vector<std::byte>> all;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    for (const ProblemFile& file :
         {test::masked_problem(dtype), test::projected_problem(dtype),
          test::linear_problem(Module::kGla, dtype), test::linear_problem(Module::kRebased, dtype),
          test::hybrid_problem(dtype)}) {
      write_problem(path, file.problem, file.inputs);
      all.push_back(test::read_bytes(path));
    }
  }
  return all;
}

class Damaged : public testing::Test {
 protected:
  // True: a valid problem. Anything but a problem or a clean refusal fails the test.
  bool read(const std::vector<std::byte>& bytes) {
    const auto start = std::chrono::steady_clock::now();
    const std::string complaint = fuzz::read_bytes_as_problem(path_, bytes);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    EXPECT_LE(time.count(), kSecondsPerFile);
    if (complaint.find("the HDF5 library fails") != std::string::npos) ++library_failures_;
    return complaint.empty();
  }
  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("problem.h5");
  int library_failures_ = 0;
};

TEST_F(Damaged, TruncatedFilesAreRefusedAtEveryLength) {
  const std::vector<std::byte> whole = samples().front();
  for (std::size_t size = 0; size < whole.size(); size += size < 128 ? 1 : 61) {
    EXPECT_FALSE(read({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)})) << size;
  }
  EXPECT_FALSE(read({whole.begin(), whole.end() - 1}));
  EXPECT_TRUE(read(whole));
}

TEST_F(Damaged, OneWrongByteIsSurvived) {
  const std::vector<std::byte> whole = samples().front();
  for (std::size_t at = 0; at < whole.size(); at += at < 1024 ? kStride : kStride * 13) {
    std::vector<std::byte> bytes = whole;
    bytes[at] ^= std::byte{0xff};
    read(bytes);
  }
}

// Four parts, which ctest runs side by side.
class DamagedAtRandom : public Damaged, public testing::WithParamInterface<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Seed, DamagedAtRandom, testing::Values(1, 2, 3, 4));

TEST_P(DamagedAtRandom, IsSurvived) {
  const auto whole = samples();
  std::mt19937_64 random(GetParam());
  int accepted = 0;
  for (int mutant = 0; mutant < kMutants; ++mutant) {
    const std::size_t sample = static_cast<std::size_t>(mutant) % whole.size();
    if (read(test::damaged(whole[sample], random))) ++accepted;
  }
  RecordProperty("accepted", accepted);
  RecordProperty("library_failures", library_failures_);
  EXPECT_GT(accepted, 0);         // damage to numbers is not visible
  EXPECT_LT(accepted, kMutants);  // damage to the rest is
}

TEST_F(Damaged, OtherKindsOfFilesAreRefused) {
  const std::string text = "q,k,v\n1,2,3\n";
  const auto* chars = reinterpret_cast<const std::byte*>(text.data());
  EXPECT_FALSE(read({chars, chars + text.size()}));
  EXPECT_FALSE(read({}));
  EXPECT_FALSE(read(std::vector<std::byte>(100'000)));
}

TEST_F(Damaged, WhatIsNotAFileIsNamed) {
  const auto complaint = [](const std::string& path) -> std::string {
    try {
      read_problem(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(complaint(path_), path_ + ": cannot open it: No such file or directory");
  EXPECT_EQ(complaint(directory_.path()), directory_.path() + ": it is not a regular file");
  EXPECT_EQ(complaint("/dev/zero"), "/dev/zero: it is not a regular file");
  const std::string fifo = directory_.file("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(complaint(fifo), fifo + ": it is not a regular file");
}

}  // namespace
}  // namespace sp
