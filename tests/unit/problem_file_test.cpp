// Problem files: what is written is read back, and what NumPy users write is understood.
//
// SPDX-License-Identifier: Apache-2.0
#include "harness/results/problem_file.hpp"

#include <gtest/gtest.h>

#include "tests/support/files.hpp"
#include "tests/support/hdf5_edits.hpp"

namespace sp {
namespace {

using test::Dims;

class ProblemFileOf : public testing::TestWithParam<DType> {};

void expect_same(const ProblemFile& a, const ProblemFile& b) {
  EXPECT_EQ(a.problem.shape, b.problem.shape);
  EXPECT_EQ(a.problem.dtype, b.problem.dtype);
  EXPECT_EQ(a.problem.scale, b.problem.scale);
  EXPECT_EQ(a.problem.projected, b.problem.projected);
  EXPECT_EQ(a.problem.mask.causal, b.problem.mask.causal);
  EXPECT_EQ(a.problem.mask.window, b.problem.mask.window);
  EXPECT_EQ(a.problem.mask.segment_ids, b.problem.mask.segment_ids);
  EXPECT_EQ(a.problem.family(), b.problem.family());
  for (const auto tensor : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out,
                            &Inputs::projection_k, &Inputs::projection_v}) {
    EXPECT_TRUE(test::same_tensor(a.inputs.*tensor, b.inputs.*tensor));
  }
}

ProblemFile round_trip(const ProblemFile& file) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("problem.h5");
  write_problem(path, file.problem, file.inputs);
  return read_problem(path);
}

TEST_P(ProblemFileOf, RoundTripsMasksAndCotangent) {
  const ProblemFile file = test::masked_problem(GetParam());
  expect_same(round_trip(file), file);
}

TEST_P(ProblemFileOf, RoundTripsProjections) {
  const ProblemFile file = test::projected_problem(GetParam());
  expect_same(round_trip(file), file);
}

TEST_P(ProblemFileOf, RoundTripsEmptyBatchesAndNoTokens) {
  for (const auto& [B, N] : {std::pair{0, 4}, {2, 0}, {0, 0}}) {
    ProblemFile file;
    file.problem.shape = {.B = B, .N = N, .H = 2, .G = 1, .D = 3, .E = 3};
    file.problem.dtype = GetParam();
    file.inputs.q = HostTensor(GetParam(), {B, N, 2, 3});
    file.inputs.k = HostTensor(GetParam(), {B, N, 1, 3});
    file.inputs.v = HostTensor(GetParam(), {B, N, 1, 3});
    expect_same(round_trip(file), file);
  }
}

TEST_P(ProblemFileOf, RoundTripsTensorsLargeEnoughToBeDeflated) {
  ProblemFile file;
  file.problem.shape = {.B = 1, .N = 3001, .H = 7, .G = 7, .D = 32, .E = 1};
  file.problem.dtype = GetParam();
  file.inputs.q = test::numbered(GetParam(), {1, 3001, 7, 32}, 0.5);
  file.inputs.k = test::numbered(GetParam(), {1, 3001, 7, 32}, 0.25);
  file.inputs.v = test::numbered(GetParam(), {1, 3001, 7, 1}, 0.25);
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("problem.h5");
  write_problem(path, file.problem, file.inputs);
  expect_same(read_problem(path), file);
  const auto raw = static_cast<std::uintmax_t>(file.inputs.q.size()) * size_of(GetParam());
  EXPECT_LT(std::filesystem::file_size(path), raw);
}

INSTANTIATE_TEST_SUITE_P(Types, ProblemFileOf,
                         testing::Values(DType::kF64, DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& instance) { return std::string(name_of(instance.param)); });

// A problem as a few lines of another program leave it: only what is required.
class Foreign : public testing::Test {
 protected:
  Foreign() {
    test::create(path_, [&](hid_t file) {
      test::put_fixed_string(file, "schema", "seqpar.problem", H5T_STR_NULLPAD, H5T_CSET_ASCII);
      const std::int32_t version = 1;
      test::put_attribute(file, "schema_version", H5T_NATIVE_INT32, &version);
      for (const char* name : {"q", "k", "v"}) {
        test::put_dataset(file, name, H5T_NATIVE_FLOAT, {1, 2, 1, 4});
      }
    });
  }
  ProblemFile read(const std::function<void(hid_t)>& change = [](hid_t) {}) {
    test::edit(path_, change);
    return read_problem(path_);
  }
  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("foreign.h5");
};

TEST_F(Foreign, DefaultsFillWhatIsOptional) {
  const ProblemFile file = read();
  EXPECT_EQ(file.problem.shape, (Shape{.B = 1, .N = 2, .H = 1, .G = 1, .D = 4, .E = 4}));
  EXPECT_EQ(file.problem.scale, 0.5);
  EXPECT_FALSE(file.problem.mask.causal);
  EXPECT_EQ(file.problem.mask.window, 0);
  EXPECT_TRUE(file.inputs.d_out.absent());
}

TEST_F(Foreign, BooleansAreReadFromNumpyEnumsAndFromIntegersOfAnyWidth) {
  const hid_t boolean = test::numpy_bool();
  const std::int8_t truth = 1;
  EXPECT_TRUE(read([&](hid_t file) {
                test::put_attribute(file, "causal", boolean, &truth);
              }).problem.mask.causal);
  H5Tclose(boolean);
  const std::uint64_t wide = 1;
  EXPECT_TRUE(read([&](hid_t file) {
                test::put_attribute(file, "causal", H5T_NATIVE_UINT64, &wide, {1});
              }).problem.mask.causal);
  EXPECT_TRUE(read([&](hid_t file) {
                test::put_attribute(file, "causal", H5T_NATIVE_UINT8, &truth);
              }).problem.mask.causal);
}

TEST_F(Foreign, ScaleMayBeAnyNumber) {
  const float real = 0.75f;
  EXPECT_EQ(read([&](hid_t file) {
              test::put_attribute(file, "scale", H5T_NATIVE_FLOAT, &real);
            }).problem.scale,
            0.75);
  const std::int16_t integer = 2;
  EXPECT_EQ(read([&](hid_t file) {
              test::put_attribute(file, "scale", H5T_NATIVE_INT16, &integer, {1});
            }).problem.scale,
            2.0);
}

TEST_F(Foreign, StringsMayBeOfAnyKind) {
  for (const auto padding : {H5T_STR_NULLPAD, H5T_STR_NULLTERM, H5T_STR_SPACEPAD}) {
    for (const auto set : {H5T_CSET_ASCII, H5T_CSET_UTF8}) {
      std::string text = "softmax";
      text.append(4, padding == H5T_STR_SPACEPAD ? ' ' : '\0');
      EXPECT_NO_THROW(read([&](hid_t file) {
        test::put_fixed_string(file, "attention", text, padding, set);
        test::put_fixed_string(file, "schema_version", "1", H5T_STR_NULLPAD, set);
      })) << padding
          << ' ' << set;
    }
  }
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  const char* text = "softmax";
  EXPECT_NO_THROW(
      read([&](hid_t file) { test::put_attribute(file, "attention", type, &text, Dims{1}); }));
  H5Tclose(type);
}

TEST_F(Foreign, HalfIsReadInEitherByteOrder) {
  for (const bool big_endian : {false, true}) {
    const hid_t half = test::ieee_half(big_endian);
    const std::vector<std::uint16_t> little{0x3c00, 0xc000, 0x0001, 0x7bff, 0, 0, 0, 0};
    const std::vector<std::uint16_t> big{0x003c, 0x00c0, 0x0100, 0xff7b, 0, 0, 0, 0};
    const ProblemFile problem = read([&](hid_t file) {
      for (const char* name : {"q", "k", "v"}) {
        test::put_dataset(file, name, half, {1, 2, 1, 4}, big_endian ? big.data() : little.data());
      }
    });
    EXPECT_EQ(problem.problem.dtype, DType::kF16);
    for (std::size_t i = 0; i < little.size(); ++i) {
      EXPECT_EQ(problem.inputs.q.as<f16>()[i].bits, little[i]) << i;
    }
    H5Tclose(half);
  }
}

TEST_F(Foreign, SixteenBitWordsAreReadAsTheirEncodingSays) {
  for (const auto& [encoding, dtype] :
       {std::pair{"float16", DType::kF16}, {"bfloat16", DType::kBF16}}) {
    const std::vector<std::uint16_t> words{0x3f80, 0x4000, 1, 0x8000, 0, 0, 0, 0};
    const ProblemFile problem = read([&](hid_t file) {
      for (const char* name : {"q", "k", "v"}) {
        test::put_dataset(file, name, H5T_STD_U16LE, {1, 2, 1, 4}, words.data());
        const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
        test::put_fixed_string(dataset, "encoding", encoding, H5T_STR_NULLPAD, H5T_CSET_ASCII);
        H5Dclose(dataset);
      }
    });
    EXPECT_EQ(problem.problem.dtype, dtype);
    EXPECT_EQ(problem.inputs.v.as<bf16>()[1].bits, 0x4000);
  }
}

TEST_F(Foreign, SegmentIdsMayBeWiderThan32BitsWhenTheirValuesFit) {
  const std::vector<std::int64_t> ids{7, -7};
  const ProblemFile problem = read([&](hid_t file) {
    test::put_dataset(file, "segment_ids", H5T_NATIVE_INT64, {1, 2}, ids.data());
  });
  EXPECT_EQ(problem.problem.mask.segment_ids, (std::vector<std::int32_t>{7, -7}));
}

TEST_F(Foreign, PrivateAttributesAndDimensionScalesOfOtherProgramsAreSkipped) {
  EXPECT_NO_THROW(read([&](hid_t file) {
    test::put_fixed_string(file, "_NCProperties", "version=2", H5T_STR_NULLPAD, H5T_CSET_ASCII);
    test::put_dataset(file, "token", H5T_NATIVE_INT64, {2});
    const hid_t axis = H5Dopen2(file, "token", H5P_DEFAULT);
    test::put_fixed_string(axis, "CLASS", "DIMENSION_SCALE", H5T_STR_NULLTERM, H5T_CSET_ASCII);
    H5Dclose(axis);
  }));
}

}  // namespace
}  // namespace sp
