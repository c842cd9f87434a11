// Malformed files of linear attention and hybrid stacks: each ends in one line that names the item
// and what is allowed.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/files.hpp"
#include "tests/support/hdf5_edits.hpp"
#include "tests/unit/malformed.hpp"

namespace sp {
namespace {

using test::expect_refused;
using test::Malformed;
using test::put_dataset;
using test::put_number;
using test::put_text;

// An edit that replaces all numbers of a float64 data set but the third by 0.
std::function<void(hid_t)> third(const char* name, const test::Dims& dims, double value) {
  return [=](hid_t f) {
    std::size_t count = 1;
    for (const hsize_t extent : dims) count *= extent;
    std::vector<double> values(count, 0);
    values.at(2) = value;
    put_dataset(f, name, H5T_NATIVE_DOUBLE, dims, values.data());
  };
}

const test::Dims kPerHead{4}, kPerChannel{2, 7, 4, 3};

// Of linear_problem(f32): B = 2, N = 7, H = 4, G = 2, D = 3, E = 5.
std::vector<Malformed> gla() {
  return {
      {"NoModule",
       [](hid_t f) { H5Adelete(f, "module"); },
       {"module is missing", "basic, lightning, retention, gla, based, rebased"}},
      {"OtherModule",
       [](hid_t f) { put_text(f, "module", "mamba"); },
       {"module 'mamba'", "basic, lightning, retention, gla, based, rebased"}},
      {"ModuleIsANumber",
       [](hid_t f) { put_number(f, "module", H5T_NATIVE_INT32, 3); },
       {"module", "string"}},
      {"LayersWithoutHybrid",
       [](hid_t f) { put_text(f, "layers", "LLNN"); },
       {"unknown attribute \"layers\"", "attention = \"linear\"", "module, epsilon"}},
      {"EpsilonWithoutNormaliser",
       [](hid_t f) { put_number(f, "epsilon", H5T_NATIVE_DOUBLE, 1e-5); },
       {"module gla has no normaliser", "epsilon", "allowed: 0"}},
      {"EpsilonIsText", [](hid_t f) { put_text(f, "epsilon", "0"); }, {"epsilon", "number"}},
      {"WindowOfGla",
       [](hid_t f) { put_number(f, "window", H5T_NATIVE_INT32, 4); },
       {"no window", "allowed: with module based"}},
      {"DecaysMissing",
       [](hid_t f) { test::remove_item(f, "log_decay"); },
       {"log_decay is missing", "module = \"gla\": q, k, v, log_decay"}},
      {"DecaysPerHead",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, kPerHead); },
       {"log_decay has shape [4]", "expected [2, 7, 4, 3]"}},
      {"DecaysOfTwoAxes",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, {7, 4}); },
       {"log_decay has shape [7, 4]", "1 dimension [H] or 4 dimensions [B, N, H, D]"}},
      {"DecaysOfKeyHeads",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, {2, 7, 2, 3}); },
       {"log_decay has shape [2, 7, 2, 3]", "expected [2, 7, 4, 3]"}},
      {"DecaysAreIntegers",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_INT32, kPerChannel); },
       {"log_decay has an unsupported type"}},
      {"DecayPositive",
       third("log_decay", kPerChannel, 1e-3),
       {"log_decay holds 0.001", "element 2", "0 or less"}},
      {"DecayNaN",
       third("log_decay", kPerChannel, std::nan("")),
       {"log_decay holds nan", "finite"}},
      {"DecayOfAReset",
       third("log_decay", kPerChannel, -std::numeric_limits<double>::infinity()),
       {"log_decay holds -inf", "finite", "reset", "segment_ids"}},
      {"DecayBeyondTheAccumulator",
       third("log_decay", kPerChannel, -1e300),
       {"log_decay holds -inf", "segment_ids"}},
      {"GammaOfGla",
       [](hid_t f) { put_dataset(f, "gamma", H5T_NATIVE_FLOAT, {3}); },
       {"unknown data set \"gamma\"", "module = \"gla\": q, k, v, d_out, log_decay"}},
      {"ProjectionOfGla",
       [](hid_t f) { put_dataset(f, "projection_k", H5T_NATIVE_FLOAT, {7, 2}); },
       {"unknown data set \"projection_k\"", "attention = \"linear\""}},
  };
}

std::vector<Malformed> retention() {
  return {
      {"DecaysPerChannel",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, kPerChannel); },
       {"log_decay has shape [2, 7, 4, 3]", "expected [4]"}},
      {"DecayOfEveryKeyHead",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, {2}); },
       {"log_decay has shape [2]", "expected [4]"}},
      {"DecayPositive", third("log_decay", kPerHead, 2), {"log_decay holds 2", "element 2"}},
      {"DecaysAreWords",
       [](hid_t f) {
         put_dataset(f, "log_decay", H5T_NATIVE_UINT16, kPerHead);
         const hid_t dataset = H5Dopen2(f, "log_decay", H5P_DEFAULT);
         put_text(dataset, "encoding", "bfloat16");
         H5Dclose(dataset);
       },
       {"log_decay has type bf16", "float64, float32"}},
      {"DecaysByRuleForTooManyHeads",
       [](hid_t f) {
         for (const char* name : {"d_out", "segment_ids", "log_decay"}) test::remove_item(f, name);
         put_dataset(f, "q", H5T_NATIVE_FLOAT, {1, 0, hsize_t{1} << 31, 1});
         for (const char* name : {"k", "v"}) put_dataset(f, name, H5T_NATIVE_FLOAT, {1, 0, 1, 1});
       },
       {"H = 2147483648", "log_decay", "65536"}},
      {"DecaysOfBasic",
       [](hid_t f) { put_text(f, "module", "basic"); },
       {"unknown data set \"log_decay\"", "module = \"basic\""}},
  };
}

std::vector<Malformed> rebased() {
  return {
      {"NoGamma",
       [](hid_t f) { test::remove_item(f, "gamma"); },
       {"gamma is missing", "q, k, v, gamma, beta"}},
      {"NoBeta",
       [](hid_t f) { test::remove_item(f, "beta"); },
       {"beta is missing", "q, k, v, gamma, beta"}},
      {"GammaPerHead",
       [](hid_t f) { put_dataset(f, "gamma", H5T_NATIVE_FLOAT, {4}); },
       {"gamma has shape [4]", "expected [3]"}},
      {"GammaIsAMatrix",
       [](hid_t f) { put_dataset(f, "gamma", H5T_NATIVE_FLOAT, {4, 3}); },
       {"gamma has shape [4, 3]", "1 dimension [D]"}},
      {"BetaInfinite",
       third("beta", {3}, std::numeric_limits<double>::infinity()),
       {"beta holds inf at element 2", "finite"}},
      {"DecaysOfRebased",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, kPerHead); },
       {"unknown data set \"log_decay\"", "module = \"rebased\""}},
      {"Scale",
       [](hid_t f) { put_number(f, "scale", H5T_NATIVE_DOUBLE, 0.5); },
       {"scale = 0.5", "rebased", "allowed: 1"}},
      {"EpsilonNegative",
       [](hid_t f) { put_number(f, "epsilon", H5T_NATIVE_DOUBLE, -1.0); },
       {"epsilon = -1", "0 or more"}},
      {"EpsilonNaN",
       [](hid_t f) { put_number(f, "epsilon", H5T_NATIVE_DOUBLE, std::nan("")); },
       {"epsilon = nan", "0 or more"}},
      {"WindowOfBasedWithoutCausal",
       [](hid_t f) {
         for (const char* name : {"gamma", "beta"}) test::remove_item(f, name);
         put_text(f, "module", "based");
         put_number(f, "causal", H5T_NATIVE_INT32, 0);
         put_number(f, "window", H5T_NATIVE_INT32, 4);
       },
       {"no window", "based, causal"}},
  };
}

// Of hybrid_problem(f32): retention in "LNLL", k and v [2, 7, 8, 3].
std::vector<Malformed> hybrid() {
  return {
      {"NoModule", [](hid_t f) { H5Adelete(f, "module"); }, {"module is missing"}},
      {"NoLayers",
       [](hid_t f) { H5Adelete(f, "layers"); },
       {"layers is missing", "L (linear) or N (softmax)"}},
      {"LayersAreEmpty",
       [](hid_t f) { put_text(f, "layers", std::string(1, '\0')); },
       {"layers is missing or empty"}},
      {"LayersAreANumber",
       [](hid_t f) { put_number(f, "layers", H5T_NATIVE_INT32, 4); },
       {"layers", "string"}},
      {"OtherLayers", [](hid_t f) { put_text(f, "layers", "LSLL"); }, {"'LSLL'", "L (linear)"}},
      {"MoreLayersThanHeads",
       [](hid_t f) { put_text(f, "layers", "LNL"); },
       {"k has 8 heads for 3 layers \"LNL\"", "G heads for each layer"}},
      {"TooManyLayers",
       [](hid_t f) {
         put_text(f, "layers", std::string(65, 'L'));
         for (const char* name : {"k", "v"}) put_dataset(f, name, H5T_NATIVE_FLOAT, {2, 7, 130, 3});
       },
       {"up to 64 letters"}},
      {"ValuesOfOneLayer",
       [](hid_t f) { put_dataset(f, "v", H5T_NATIVE_FLOAT, {2, 7, 2, 3}); },
       {"v has shape [2, 7, 2, 3]", "expected [2, 7, 8, 3]"}},
      {"HeadSizesDiffer",
       [](hid_t f) { put_dataset(f, "v", H5T_NATIVE_FLOAT, {2, 7, 8, 5}); },
       {"E = 5", "D = 3"}},
      {"NotCausal",
       [](hid_t f) { put_number(f, "causal", H5T_NATIVE_INT32, 0); },
       {"hybrid stack is causal"}},
      {"Window", [](hid_t f) { put_number(f, "window", H5T_NATIVE_INT32, 4); }, {"no window"}},
      {"ModuleBased",
       [](hid_t f) {
         test::remove_item(f, "log_decay");
         put_text(f, "module", "based");
         put_number(f, "scale", H5T_NATIVE_DOUBLE, 1.0);
       },
       {"module based in a hybrid stack", "basic, lightning, retention"}},
      {"Projection",
       [](hid_t f) { put_dataset(f, "projection_v", H5T_NATIVE_FLOAT, {7, 2}); },
       {"unknown data set \"projection_v\"", "attention = \"hybrid\""}},
  };
}

class MalformedGla : public testing::TestWithParam<Malformed> {};
TEST_P(MalformedGla, IsRefusedWithOneLine) {
  expect_refused(test::linear_problem(Module::kGla, DType::kF32), GetParam());
}

class MalformedRetention : public testing::TestWithParam<Malformed> {};
TEST_P(MalformedRetention, IsRefusedWithOneLine) {
  expect_refused(test::linear_problem(Module::kRetention, DType::kF32), GetParam());
}

class MalformedRebased : public testing::TestWithParam<Malformed> {};
TEST_P(MalformedRebased, IsRefusedWithOneLine) {
  expect_refused(test::linear_problem(Module::kRebased, DType::kF32), GetParam());
}

class MalformedHybrid : public testing::TestWithParam<Malformed> {};
TEST_P(MalformedHybrid, IsRefusedWithOneLine) {
  expect_refused(test::hybrid_problem(DType::kF32), GetParam());
}

std::string name_of(const testing::TestParamInfo<Malformed>& instance) {
  return instance.param.name;
}
INSTANTIATE_TEST_SUITE_P(Case, MalformedGla, testing::ValuesIn(gla()), name_of);
INSTANTIATE_TEST_SUITE_P(Case, MalformedRetention, testing::ValuesIn(retention()), name_of);
INSTANTIATE_TEST_SUITE_P(Case, MalformedRebased, testing::ValuesIn(rebased()), name_of);
INSTANTIATE_TEST_SUITE_P(Case, MalformedHybrid, testing::ValuesIn(hybrid()), name_of);

}  // namespace
}  // namespace sp
