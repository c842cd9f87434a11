// Result files: ours come back whole, other people's are read as they are.
//
// SPDX-License-Identifier: Apache-2.0
#include "harness/results/result_file.hpp"

#include <gtest/gtest.h>

#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"
#include "tests/support/hdf5_edits.hpp"

namespace sp {
namespace {

class ResultFileOf : public testing::TestWithParam<DType> {};

ResultInfo info_of(std::int64_t ranks) {
  ResultInfo info{.algorithm = "ring/zigzag", .backend = "thread", .ranks = ranks};
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    info.bytes_sent_per_rank.push_back(1000 * rank);
    info.messages_per_rank.push_back(rank + 1);
  }
  return info;
}

TEST_P(ResultFileOf, RoundTrips) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("result.h5");
  for (const ProblemFile& file :
       {test::masked_problem(GetParam()), test::projected_problem(GetParam()),
        test::linear_problem(Module::kLightning, GetParam()),
        test::linear_problem(Module::kGla, GetParam()),
        test::linear_problem(Module::kRebased, GetParam()), test::hybrid_problem(GetParam())}) {
    for (const std::int64_t ranks : {1, 3}) {
      const Outputs outputs = test::sample_outputs(file.problem);
      write_result(path, file.problem, outputs, info_of(ranks), capture_environment());
      const ResultFile result = read_result(path);
      for (const auto tensor : {&Outputs::out, &Outputs::lse, &Outputs::d_q, &Outputs::d_k,
                                &Outputs::d_v, &Outputs::d_projection_k, &Outputs::d_projection_v,
                                &Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta}) {
        EXPECT_TRUE(test::same_tensor(outputs.*tensor, result.outputs.*tensor));
      }
      EXPECT_EQ(result.info.algorithm, "ring/zigzag");
      EXPECT_EQ(result.info.backend, "thread");
      EXPECT_EQ(result.info.ranks, ranks);
      EXPECT_EQ(result.info.bytes_sent_per_rank, info_of(ranks).bytes_sent_per_rank);
      EXPECT_EQ(result.info.messages_per_rank, info_of(ranks).messages_per_rank);
    }
  }
  EXPECT_EQ(directory.count(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Types, ResultFileOf,
                         testing::Values(DType::kF64, DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& instance) { return std::string(name_of(instance.param)); });

class ForeignResult : public testing::Test {
 protected:
  std::string complaint(const std::function<void(hid_t)>& fill) {
    test::create(path_, fill);
    try {
      read_result(path_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "";
  }
  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("theirs.h5");
};

TEST_F(ForeignResult, NeedsNothingButOut) {
  const std::vector<float> values{1, NAN, INFINITY, -2};
  EXPECT_EQ(complaint([&](hid_t file) {
              test::put_dataset(file, "out", H5T_IEEE_F32LE, {1, 2, 1, 2}, values.data());
              test::put_fixed_string(file, "title", "anything", H5T_STR_NULLPAD, H5T_CSET_ASCII);
            }),
            "");
  const ResultFile result = read_result(path_);
  EXPECT_TRUE(std::isnan(result.outputs.out.at(1)));
  EXPECT_TRUE(std::isinf(result.outputs.out.at(2)));
  EXPECT_TRUE(result.outputs.lse.absent());
  EXPECT_TRUE(result.info.algorithm.empty());
}

TEST_F(ForeignResult, TypesNeedNotAgree) {
  const hid_t half = test::ieee_half(false);
  EXPECT_EQ(complaint([&](hid_t file) {
              test::put_dataset(file, "out", half, {1, 2, 1, 2});
              test::put_dataset(file, "lse", H5T_IEEE_F64LE, {1, 1, 2});
              test::put_dataset(file, "d_q", H5T_IEEE_F32BE, {1, 2, 1, 2});
            }),
            "");
  H5Tclose(half);
  const ResultFile result = read_result(path_);
  EXPECT_EQ(result.outputs.out.dtype(), DType::kF16);
  EXPECT_EQ(result.outputs.lse.dtype(), DType::kF64);
  EXPECT_EQ(result.outputs.d_q.dtype(), DType::kF32);
}

TEST_F(ForeignResult, GradientsOfDecaysArePerHeadOrPerChannel) {
  for (const test::Dims& dims : {test::Dims{3}, test::Dims{1, 2, 3, 2}}) {
    EXPECT_EQ(complaint([&](hid_t file) {
                test::put_dataset(file, "out", H5T_IEEE_F32LE, {1, 2, 3, 2});
                test::put_dataset(file, "d_log_decay", H5T_IEEE_F64LE, dims);
              }),
              "");
    EXPECT_EQ(read_result(path_).outputs.d_log_decay.shape().size(), dims.size());
  }
}

TEST_F(ForeignResult, RefusalsNameWhatIsAllowed) {
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(complaint([](hid_t) {}), "out is missing"));
  EXPECT_TRUE(has(complaint([](hid_t file) {
                    test::put_dataset(file, "out", H5T_IEEE_F32LE, {1, 2, 1, 2});
                    test::put_dataset(file, "dq", H5T_IEEE_F32LE, {1, 2, 1, 2});
                  }),
                  "unknown data set \"dq\"; allowed data sets: out, lse, d_q"));
  EXPECT_TRUE(
      has(complaint([](hid_t file) { test::put_dataset(file, "out", H5T_IEEE_F32LE, {2, 2}); }),
          "out has shape [2, 2]; allowed: 4 dimensions [B, N, H, E]"));
  EXPECT_TRUE(has(complaint([](hid_t file) {
                    test::put_dataset(file, "out", H5T_IEEE_F32LE, {1, 2, 1, 2});
                    test::put_dataset(file, "d_log_decay", H5T_IEEE_F32LE, {2, 2});
                  }),
                  "d_log_decay has shape [2, 2]; allowed: 1 dimension [H] or 4 dimensions [B, N, "
                  "H, D]"));
}

TEST_F(ForeignResult, AProblemIsNotAResult) {
  const ProblemFile file = test::masked_problem(DType::kF32);
  write_problem(path_, file.problem, file.inputs);
  EXPECT_THROW(read_result(path_), Error);
}

}  // namespace
}  // namespace sp
