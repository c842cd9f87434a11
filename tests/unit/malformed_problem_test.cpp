// Malformed problem files: each ends in one line that names the file, the item and what is allowed.
//
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/files.hpp"
#include "tests/support/hdf5_edits.hpp"
#include "tests/unit/malformed.hpp"

namespace sp {
namespace {

using test::expect_refused;
using test::Malformed;
using test::put_attribute;
using test::put_dataset;
using test::put_number;
using test::put_text;

void put_encoding(hid_t file, const char* name, const char* encoding) {
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  put_text(dataset, "encoding", encoding);
  H5Dclose(dataset);
}
void put_huge(hid_t file, hid_t layout_plan, const test::Dims& dims) {
  test::remove_item(file, "q");
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  H5Dclose(H5Dcreate2(file, "q", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, layout_plan, H5P_DEFAULT));
  H5Sclose(space);
}

std::vector<Malformed> attributes() {
  return {
      {"NoSchema", [](hid_t f) { H5Adelete(f, "schema"); }, {"schema", "seqpar.problem"}},
      {"OtherSchema",
       [](hid_t f) { put_text(f, "schema", "seqpar.result"); },
       {"seqpar.result", "seqpar.problem"}},
      {"SchemaIsANumber",
       [](hid_t f) { put_number(f, "schema", H5T_NATIVE_INT32, 1); },
       {"schema", "string"}},
      {"NoVersion", [](hid_t f) { H5Adelete(f, "schema_version"); }, {"schema_version", "1"}},
      {"LaterVersion",
       [](hid_t f) { put_number(f, "schema_version", H5T_NATIVE_INT64, std::int64_t{2}); },
       {"schema_version", "allowed: 1"}},
      {"ModuleOfSoftmax",
       [](hid_t f) { put_text(f, "module", "gla"); },
       {"unknown attribute \"module\"", "attention = \"softmax\": schema"}},
      {"LayersOfSoftmax",
       [](hid_t f) { put_text(f, "layers", "NN"); },
       {"unknown attribute \"layers\"", "attention = \"softmax\""}},
      {"EpsilonOfSoftmax",
       [](hid_t f) { put_number(f, "epsilon", H5T_NATIVE_DOUBLE, 1e-5); },
       {"unknown attribute \"epsilon\"", "attention = \"softmax\""}},
      {"OtherAttention",
       [](hid_t f) { put_text(f, "attention", "flash"); },
       {"flash", "softmax, linear, hybrid"}},
      {"CausalIsTwo",
       [](hid_t f) { put_number(f, "causal", H5T_NATIVE_INT32, 2); },
       {"causal = 2", "0, 1"}},
      {"CausalIsNegative",
       [](hid_t f) { put_number(f, "causal", H5T_NATIVE_INT32, -1); },
       {"causal = -1", "0, 1"}},
      {"CausalIsText", [](hid_t f) { put_text(f, "causal", "yes"); }, {"causal", "integer"}},
      {"CausalIsAFloat",
       [](hid_t f) { put_number(f, "causal", H5T_NATIVE_DOUBLE, 1.0); },
       {"causal", "integer"}},
      {"CausalIsAList",
       [](hid_t f) {
         const std::int32_t two[] = {0, 1};
         put_attribute(f, "causal", H5T_NATIVE_INT32, two, {2});
       },
       {"causal", "integer"}},
      {"ScaleIsAnEmptyList",
       [](hid_t f) {
         const double nothing = 0;
         put_attribute(f, "scale", H5T_NATIVE_DOUBLE, &nothing, {0});
       },
       {"scale", "0 elements"}},
      {"ScaleIsNaN",
       [](hid_t f) { put_number(f, "scale", H5T_NATIVE_DOUBLE, std::nan("")); },
       {"scale", "finite"}},
      {"ScaleIsText", [](hid_t f) { put_text(f, "scale", "0.5"); }, {"scale", "number"}},
      {"WindowIsZero",
       [](hid_t f) { put_number(f, "window", H5T_NATIVE_INT32, 0); },
       {"window = 0", "1 or more"}},
      {"WindowIsNegative",
       [](hid_t f) { put_number(f, "window", H5T_NATIVE_INT32, -3); },
       {"window = -3", "1 or more"}},
      {"UnknownAttribute",
       [](hid_t f) { put_number(f, "Causal", H5T_NATIVE_INT32, 1); },
       {"Causal", "schema_version, attention, causal, scale, window"}},
      {"AttributeNameOfManyLines",
       [](hid_t f) { put_number(f, "a\nb\rc", H5T_NATIVE_INT32, 1); },
       {"a b c"}},
  };
}

std::vector<Malformed> datasets() {
  return {
      {"NoKeys", [](hid_t f) { test::remove_item(f, "k"); }, {"k is missing", "q, k, v"}},
      {"MisspeltCotangent",
       [](hid_t f) { H5Lmove(f, "d_out", f, "d_Out", H5P_DEFAULT, H5P_DEFAULT); },
       {"d_Out", "d_out", "segment_ids"}},
      {"Group",
       [](hid_t f) { H5Gclose(H5Gcreate2(f, "extra", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)); },
       {"group", "extra", "q, k, v"}},
      {"QueryIsAGroup",
       [](hid_t f) {
         test::remove_item(f, "q");
         H5Gclose(H5Gcreate2(f, "q", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
       },
       {"group", "\"q\""}},
      {"QueryIsElsewhere",
       [](hid_t f) {
         test::remove_item(f, "q");
         H5Lcreate_external("/etc/passwd", "/q", f, "q", H5P_DEFAULT, H5P_DEFAULT);
       },
       {"link", "\"q\""}},
      {"QueryIsStoredInAnotherFile",
       [](hid_t f) {
         const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
         H5Pset_external(plan, "/etc/passwd", 0, 2 * 7 * 4 * 3 * 4);
         put_huge(f, plan, {2, 7, 4, 3});
         H5Pclose(plan);
       },
       {"q is not stored in this file"}},
      {"WrongRank",
       [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_FLOAT, {7, 4, 3}); },
       {"q has shape [7, 4, 3]", "4 dimensions [B, N, H, D]"}},
      {"Scalar", [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_FLOAT, {}); }, {"q", "4 dimensions"}},
      {"Integers",
       [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_INT32, {2, 7, 4, 3}); },
       {"q has an unsupported type", "float64, float32, float16"}},
      {"LongDouble",
       [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_LDOUBLE, {2, 7, 4, 3}); },
       {"q has an unsupported type"}},
      {"WordsWithoutEncoding",
       [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_UINT16, {2, 7, 4, 3}); },
       {"q has an unsupported type", "encoding"}},
      {"WordsInAnUnknownEncoding",
       [](hid_t f) {
         put_dataset(f, "q", H5T_NATIVE_UINT16, {2, 7, 4, 3});
         put_encoding(f, "q", "float8");
       },
       {"q has an unsupported type", "bfloat16"}},
      {"EncodedFloats", [](hid_t f) { put_encoding(f, "q", "bfloat16"); }, {"q", "encoding"}},
      {"TypesDisagree",
       [](hid_t f) { put_dataset(f, "k", H5T_NATIVE_DOUBLE, {2, 7, 2, 3}); },
       {"k has type f64", "expected f32"}},
      {"CotangentTypeDisagrees",
       [](hid_t f) { put_dataset(f, "d_out", H5T_NATIVE_DOUBLE, {2, 7, 4, 5}); },
       {"d_out has type f64", "expected f32"}},
      {"BatchesDisagree",
       [](hid_t f) { put_dataset(f, "k", H5T_NATIVE_FLOAT, {1, 7, 2, 3}); },
       {"k has shape [1, 7, 2, 3]", "expected [2, 7, 2, 3]"}},
      {"HeadSizesDisagree",
       [](hid_t f) { put_dataset(f, "k", H5T_NATIVE_FLOAT, {2, 7, 2, 4}); },
       {"k has shape", "expected [2, 7, 2, 3]"}},
      {"ValueHeadsDisagree",
       [](hid_t f) { put_dataset(f, "v", H5T_NATIVE_FLOAT, {2, 7, 4, 5}); },
       {"v has shape", "expected [2, 7, 2, 5]"}},
      {"HeadsDoNotDivide",
       [](hid_t f) {
         put_dataset(f, "k", H5T_NATIVE_FLOAT, {2, 7, 3, 3});
         put_dataset(f, "v", H5T_NATIVE_FLOAT, {2, 7, 3, 5});
       },
       {"G = 3", "divide", "H = 4"}},
      {"NoHeads",
       [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_FLOAT, {2, 7, 0, 3}); },
       {"H = 0", "allowed: 1"}},
      {"NoHeadSize",
       [](hid_t f) { put_dataset(f, "q", H5T_NATIVE_FLOAT, {2, 7, 4, 0}); },
       {"D = 0", "allowed: 1"}},
      {"CotangentShapeDisagrees",
       [](hid_t f) { put_dataset(f, "d_out", H5T_NATIVE_FLOAT, {2, 7, 4, 3}); },
       {"d_out has shape", "expected [2, 7, 4, 5]"}},
      {"SegmentsShapeDisagrees",
       [](hid_t f) { put_dataset(f, "segment_ids", H5T_NATIVE_INT32, {7, 2}); },
       {"segment_ids has shape [7, 2]", "[2, 7]"}},
      {"SegmentsAreFloats",
       [](hid_t f) { put_dataset(f, "segment_ids", H5T_NATIVE_FLOAT, {2, 7}); },
       {"segment_ids", "int32"}},
      {"SegmentIdTooLarge",
       [](hid_t f) {
         std::vector<std::int64_t> ids(14, 1);
         ids[5] = std::int64_t{1} << 31;
         put_dataset(f, "segment_ids", H5T_NATIVE_INT64, {2, 7}, ids.data());
       },
       {"segment_ids holds 2147483648 at element 5", "2147483647"}},
      {"DecaysOfSoftmax",
       [](hid_t f) { put_dataset(f, "log_decay", H5T_NATIVE_FLOAT, {4}); },
       {"unknown data set \"log_decay\"", "attention = \"softmax\": q, k, v"}},
      {"OneProjection",
       [](hid_t f) { put_dataset(f, "projection_k", H5T_NATIVE_FLOAT, {7, 2}); },
       {"projection_k, projection_v", "both or none"}},
      {"ProjectionsWithMask",
       [](hid_t f) {
         put_dataset(f, "projection_k", H5T_NATIVE_FLOAT, {7, 2});
         put_dataset(f, "projection_v", H5T_NATIVE_FLOAT, {7, 2});
       },
       {"no mask"}},
      {"ProjectionToNothing",
       [](hid_t f) {
         put_dataset(f, "projection_k", H5T_NATIVE_FLOAT, {7, 0});
         put_dataset(f, "projection_v", H5T_NATIVE_FLOAT, {7, 0});
       },
       {"projection_k has shape [7, 0]", "K' >= 1"}},
      {"NaN",
       [](hid_t f) {
         std::vector<float> values(2 * 7 * 4 * 3, 0);
         values[17] = std::numeric_limits<float>::quiet_NaN();
         put_dataset(f, "q", H5T_NATIVE_FLOAT, {2, 7, 4, 3}, values.data());
       },
       {"q holds nan at element 17", "finite"}},
      {"Infinity",
       [](hid_t f) {
         std::vector<float> values(2 * 7 * 2 * 5, 0);
         values[3] = std::numeric_limits<float>::infinity();
         put_dataset(f, "v", H5T_NATIVE_FLOAT, {2, 7, 2, 5}, values.data());
       },
       {"v holds inf at element 3", "finite"}},
      {"SizesThatOverflow",
       [](hid_t f) {
         const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
         const hsize_t chunk[] = {1, 1, 1, 1};
         H5Pset_chunk(plan, 4, chunk);
         const hsize_t huge = hsize_t{1} << 31;
         put_huge(f, plan, {huge, huge, 2, 3});
         H5Pclose(plan);
       },
       {"q is too large"}},
      {"MoreThanTheFileCanHold",
       [](hid_t f) {
         const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
         const hsize_t chunk[] = {1, 1024, 1, 1};
         H5Pset_chunk(plan, 4, chunk);
         put_huge(f, plan, {64, 1 << 20, 4, 64});
         H5Pclose(plan);
       },
       {"q claims shape [64, 1048576, 4, 64]", "more than the file can hold"}},
  };
}

class MalformedProblem : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedProblem, IsRefusedWithOneLine) {
  expect_refused(test::masked_problem(DType::kF32), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Attributes, MalformedProblem, testing::ValuesIn(attributes()),
                         [](const auto& instance) { return instance.param.name; });
INSTANTIATE_TEST_SUITE_P(Datasets, MalformedProblem, testing::ValuesIn(datasets()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace sp
