// Problem files of linear attention and hybrid stacks: round trips, defaults and types.
//
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "harness/results/problem_file.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"
#include "tests/support/hdf5_edits.hpp"

namespace sp {
namespace {

void expect_same(const ProblemFile& a, const ProblemFile& b) {
  EXPECT_EQ(a.problem.shape, b.problem.shape);
  EXPECT_EQ(a.problem.dtype, b.problem.dtype);
  EXPECT_EQ(a.problem.scale, b.problem.scale);
  EXPECT_EQ(a.problem.module, b.problem.module);
  EXPECT_EQ(a.problem.epsilon, b.problem.epsilon);
  EXPECT_EQ(a.problem.layers, b.problem.layers);
  EXPECT_EQ(a.problem.projected, b.problem.projected);
  EXPECT_EQ(a.problem.mask.causal, b.problem.mask.causal);
  EXPECT_EQ(a.problem.mask.window, b.problem.mask.window);
  EXPECT_EQ(a.problem.mask.segment_ids, b.problem.mask.segment_ids);
  for (const auto tensor : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out, &Inputs::log_decay,
                            &Inputs::gamma, &Inputs::beta, &Inputs::projection_k}) {
    EXPECT_TRUE(test::same_tensor(a.inputs.*tensor, b.inputs.*tensor));
  }
}

ProblemFile round_trip(const ProblemFile& file) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("problem.h5");
  write_problem(path, file.problem, file.inputs);
  return read_problem(path);
}

constexpr DType kTypes[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};

class LinearFileOf : public testing::TestWithParam<std::tuple<Module, DType>> {};

TEST_P(LinearFileOf, RoundTripsWithEverythingOfTheModule) {
  const auto [module, dtype] = GetParam();
  const ProblemFile file = test::linear_problem(module, dtype);
  expect_same(round_trip(file), file);
}

TEST_P(LinearFileOf, RoundTripsBothDirectionsWithoutTokens) {
  const auto [module, dtype] = GetParam();
  ProblemFile file = test::linear_problem(module, dtype);
  file.problem.mask = {};
  file.problem.shape = {.B = 1, .N = 0, .H = 4, .G = 2, .D = 3, .E = 5};
  file.inputs.q = HostTensor(dtype, {1, 0, 4, 3});
  file.inputs.k = HostTensor(dtype, {1, 0, 2, 3});
  file.inputs.v = HostTensor(dtype, {1, 0, 2, 5});
  file.inputs.d_out = {};
  if (module == Module::kGla) {
    file.inputs.log_decay = HostTensor(accumulator_of(dtype), {1, 0, 4, 3});
  }
  expect_same(round_trip(file), file);
}

INSTANTIATE_TEST_SUITE_P(Modules, LinearFileOf,
                         testing::Combine(testing::ValuesIn(kModules), testing::ValuesIn(kTypes)),
                         [](const auto& instance) {
                           return std::string(name_of(std::get<0>(instance.param))) + "_" +
                                  std::string(name_of(std::get<1>(instance.param)));
                         });

TEST(HybridFile, RoundTripsEveryStack) {
  for (const DType dtype : kTypes) {
    ProblemFile file = test::hybrid_problem(dtype);
    for (const char* layers : {"LNLL", "NNNN", "LLLL", "NL", "L", "LNLNLNLN"}) {
      file.problem.layers = layers;
      file.problem.shape.H = 8;
      file.problem.shape.G = 8 / file.problem.layer_count();
      file.inputs.q = test::numbered(dtype, {2, 7, 8, 3}, 0.25);
      file.inputs.d_out = test::numbered(dtype, {2, 7, 8, 3}, 2);
      file.inputs.log_decay = HostTensor(accumulator_of(dtype), {8});
      expect_same(round_trip(file), file);
    }
  }
}

TEST(LinearFile, InputsThatTheModuleDoesNotHaveAreNotWritten) {
  const test::TemporaryDirectory directory;
  ProblemFile file = test::linear_problem(Module::kBasic, DType::kF32);
  file.inputs.log_decay = HostTensor(DType::kF32, {4});
  EXPECT_THROW(write_problem(directory.file("p.h5"), file.problem, file.inputs), Error);
  file = test::masked_problem(DType::kF32);
  file.inputs.gamma = HostTensor(DType::kF32, {3});
  EXPECT_THROW(write_problem(directory.file("p.h5"), file.problem, file.inputs), Error);
  file = test::masked_problem(DType::kF32);
  file.inputs.projection_k = file.inputs.projection_v = HostTensor(DType::kF32, {7, 2});
  EXPECT_THROW(write_problem(directory.file("p.h5"), file.problem, file.inputs), Error);
  EXPECT_EQ(directory.count(), 0u);
}

// A problem as a few lines of another program leave it: only what is required.
class ForeignLinear : public testing::Test {
 protected:
  ProblemFile read(
      const std::string& attention, const std::string& module,
      const std::function<void(hid_t)>& change = [](hid_t) {}) {
    test::create(path_, [&](hid_t file) {
      const auto text = [&](const char* name, const std::string& value) {
        test::put_fixed_string(file, name, value, H5T_STR_NULLPAD, H5T_CSET_ASCII);
      };
      text("schema", "seqpar.problem");
      text("schema_version", "1");
      text("attention", attention);
      text("module", module);
      for (const char* name : {"q", "k", "v"}) test::put_dataset(file, name, type_, {1, 2, 4, 16});
      change(file);
    });
    return read_problem(path_);
  }
  hid_t type_ = H5T_NATIVE_FLOAT;
  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("foreign.h5");
};

void put_stack(hid_t file) {
  test::put_fixed_string(file, "layers", "LN", H5T_STR_NULLPAD, H5T_CSET_ASCII);
  const std::int32_t truth = 1;
  test::put_attribute(file, "causal", H5T_NATIVE_INT32, &truth);
}

TEST_F(ForeignLinear, DefaultsFillWhatIsOptional) {
  for (const auto& [module, epsilon] :
       {std::pair{Module::kBasic, 0.0}, {Module::kRetention, 0.0}, {Module::kBased, 1e-10}}) {
    const ProblemFile file = read("linear", std::string(name_of(module)));
    EXPECT_EQ(file.problem.family(), Family::kLinear);
    EXPECT_EQ(file.problem.module, module);
    EXPECT_EQ(file.problem.scale, 1);
    EXPECT_EQ(file.problem.epsilon, epsilon);
    EXPECT_FALSE(file.problem.mask.causal);
  }
  const ProblemFile rebased = read("linear", "rebased", [](hid_t file) {
    for (const char* name : {"gamma", "beta"})
      test::put_dataset(file, name, H5T_NATIVE_FLOAT, {16});
  });
  EXPECT_EQ(rebased.problem.epsilon, 1e-5);
}

TEST_F(ForeignLinear, StacksDivideTheHeadsAmongTheirLayers) {
  const ProblemFile file = read("hybrid", "basic", put_stack);
  EXPECT_EQ(file.problem.family(), Family::kHybrid);
  EXPECT_EQ(file.problem.layers, "LN");
  EXPECT_EQ(file.problem.scale, 0.25);  // 1/sqrt(D)
  EXPECT_EQ(file.problem.shape, (Shape{.B = 1, .N = 2, .H = 4, .G = 2, .D = 16, .E = 16}));
}

TEST_F(ForeignLinear, DecaysFollowTheRuleOfTheirModule) {
  const auto expect = [](const ProblemFile& file, DType dtype, Module module) {
    const auto rule = HostTensor::from_doubles(dtype, {4}, default_log_decay(module, 4));
    EXPECT_TRUE(test::same_tensor(file.inputs.log_decay, rule));
  };
  expect(read("linear", "lightning"), DType::kF32, Module::kLightning);
  expect(read("hybrid", "retention", put_stack), DType::kF32, Module::kRetention);
  type_ = H5T_NATIVE_DOUBLE;
  expect(read("linear", "retention"), DType::kF64, Module::kRetention);
}

TEST_F(ForeignLinear, DecaysAndParametersTakeTheAccumulatorType) {
  const std::vector<double> wide{-0.1, -1e-9, -2, 0};
  const std::vector<float> narrow{-0.1f, -1e-9f, -2, 0};
  const auto rounded = [](double value) { return static_cast<double>(static_cast<float>(value)); };
  const ProblemFile single = read("linear", "retention", [&](hid_t file) {
    test::put_dataset(file, "log_decay", H5T_IEEE_F64LE, {4}, wide.data());
  });
  type_ = H5T_NATIVE_DOUBLE;
  const ProblemFile exact = read("linear", "retention", [&](hid_t file) {
    test::put_dataset(file, "log_decay", H5T_NATIVE_FLOAT, {4}, narrow.data());
  });
  EXPECT_EQ(single.inputs.log_decay.dtype(), DType::kF32);
  EXPECT_EQ(exact.inputs.log_decay.dtype(), DType::kF64);
  for (std::int64_t h = 0; h < 4; ++h) {
    EXPECT_EQ(single.inputs.log_decay.at(h), rounded(wide[static_cast<std::size_t>(h)])) << h;
    EXPECT_EQ(exact.inputs.log_decay.at(h), narrow[static_cast<std::size_t>(h)]) << h;
  }
}

}  // namespace
}  // namespace sp
