// SPDX-License-Identifier: Apache-2.0
#include "harness/results/problem_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "harness/results/atomic_file.hpp"
#include "harness/results/foreign_file.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/schema.hpp"
#include "harness/results/tensor_data.hpp"

namespace sp {
namespace {

constexpr const char* kSchema = "seqpar.problem";
const Axes kQueryAxes{"B", "N", "H", "D"};
const Axes kKeyAxes{"B", "N", "G", "D"};
const Axes kValueAxes{"B", "N", "G", "E"};
const Axes kOutAxes{"B", "N", "H", "E"};
const Axes kTokenAxes{"B", "N"};
const Axes kProjectionAxes{"N", "K'"};

std::vector<std::string> attribute_names() {
  return {"schema", "schema_version", "attention", "causal", "scale", "window"};
}
std::vector<std::string> dataset_names() {
  return {"q", "k", "v", "d_out", "segment_ids", "projection_k", "projection_v"};
}

void read_attributes(hid_t file, Problem& problem) {
  check_schema(file, kSchema);
  check_attribute_names(file, attribute_names());
  const std::string attention = text_attribute(file, "attention").value_or("softmax");
  require_usage(attention != "linear",
                "attribute attention = \"linear\": linear attention is not supported by this "
                "version; allowed: softmax");
  require_usage(attention == "softmax",
                fmt::format("attribute attention = \"{}\"; allowed: softmax", attention));
  const std::int64_t causal = integer_attribute(file, "causal").value_or(0);
  require_usage(causal == 0 || causal == 1,
                fmt::format("attribute causal = {}; allowed: 0, 1", causal));
  problem.mask.causal = causal == 1;
  if (const auto window = integer_attribute(file, "window")) {
    require_usage(*window >= 1, fmt::format("attribute window = {}; allowed: 1 or more, or no such "
                                            "attribute for no window",
                                            *window));
    problem.mask.window = *window;
  }
  if (const auto scale = real_attribute(file, "scale")) {
    require_usage(std::isfinite(*scale),
                  fmt::format("attribute scale = {}; allowed: a finite number", *scale));
    problem.scale = *scale;
  }
}

// What the data sets say about the shape; that they agree with it is validate()'s part.
void read_datasets(hid_t file, std::int64_t file_bytes, ProblemFile& result) {
  const std::vector<std::string> present =
      check_dataset_names(file, dataset_names(), Groups::kRefused);
  const auto has = [&](const char* name) {
    return std::find(present.begin(), present.end(), name) != present.end();
  };
  for (const char* name : {"q", "k", "v"}) {
    require_usage(has(name), fmt::format("data set {} is missing; required: q, k, v", name));
  }
  require_usage(has("projection_k") == has("projection_v"),
                "one of data sets projection_k, projection_v is missing; allowed: both or none");
  Inputs& inputs = result.inputs;
  inputs.q = read_tensor(file, "q", kQueryAxes, file_bytes);
  inputs.k = read_tensor(file, "k", kKeyAxes, file_bytes);
  inputs.v = read_tensor(file, "v", kValueAxes, file_bytes);
  Problem& problem = result.problem;
  problem.dtype = inputs.q.dtype();
  problem.shape = {.B = inputs.q.extent(0),
                   .N = inputs.q.extent(1),
                   .H = inputs.q.extent(2),
                   .G = inputs.k.extent(2),
                   .D = inputs.q.extent(3),
                   .E = inputs.v.extent(3)};
  if (has("d_out")) inputs.d_out = read_tensor(file, "d_out", kOutAxes, file_bytes);
  if (has("segment_ids")) {
    const HostTensor ids = read_int32_tensor(file, "segment_ids", kTokenAxes, file_bytes);
    require_usage(ids.extent(0) == problem.shape.B && ids.extent(1) == problem.shape.N,
                  fmt::format("data set segment_ids has shape {}; allowed: [{}, {}]",
                              describe_shape(ids.shape()), problem.shape.B, problem.shape.N));
    const auto values = ids.as<std::int32_t>();
    problem.mask.segment_ids.assign(values.begin(), values.end());
  }
  if (has("projection_k")) {
    inputs.projection_k = read_tensor(file, "projection_k", kProjectionAxes, file_bytes);
    inputs.projection_v = read_tensor(file, "projection_v", kProjectionAxes, file_bytes);
    problem.projected = inputs.projection_k.extent(1);
    require_usage(problem.projected >= 1,
                  fmt::format("data set projection_k has shape {}; allowed: [N, K'] with K' >= 1",
                              describe_shape(inputs.projection_k.shape())));
  }
}

void check_problem(ProblemFile& result, bool default_scaled) {
  if (default_scaled && result.problem.shape.D > 0) {
    result.problem.scale = default_scale(result.problem.shape);
  }
  validate(result.problem, result.inputs);
}

struct Raw {
  ProblemFile file;
  bool default_scaled = false;
};

Raw read_raw(const std::string& path, std::int64_t file_bytes) {
  const h5::Handle file = h5::open_file(path);
  Raw raw;
  read_attributes(file, raw.file.problem);
  raw.default_scaled = !h5::read_attribute(file, "scale").has_value();
  read_datasets(file, file_bytes, raw.file);
  return raw;
}

}  // namespace

ProblemFile read_problem(const std::string& path) {
  Raw raw = read_foreign_file(path, read_raw);
  try {
    check_problem(raw.file, raw.default_scaled);
  } catch (const Error& error) {
    throw Error(error.kind(), one_line(path + ": " + error.what()));
  }
  return std::move(raw.file);
}

ProblemFile read_problem_unprotected(const std::string& path, std::int64_t file_bytes) {
  Raw raw = read_raw(path, file_bytes);
  check_problem(raw.file, raw.default_scaled);
  return std::move(raw.file);
}

void write_problem(const std::string& path, const Problem& problem, const Inputs& inputs) {
  validate(problem, inputs);
  h5::Handle file = h5::create_image();
  write_schema(file, kSchema);
  h5::write_attribute(file, "attention", std::string("softmax"));
  h5::write_attribute(file, "causal", std::int64_t{problem.mask.causal});
  h5::write_attribute(file, "scale", problem.scale);
  if (problem.mask.window > 0) h5::write_attribute(file, "window", problem.mask.window);
  const auto write = [&](const char* name, const Axes& axes, const HostTensor& tensor) {
    if (!tensor.absent()) write_tensor(file, name, axes, tensor);
  };
  write("q", kQueryAxes, inputs.q);
  write("k", kKeyAxes, inputs.k);
  write("v", kValueAxes, inputs.v);
  write("d_out", kOutAxes, inputs.d_out);
  if (!problem.mask.segment_ids.empty()) {
    HostTensor ids(DType::kI32, {problem.shape.B, problem.shape.N});
    std::copy(problem.mask.segment_ids.begin(), problem.mask.segment_ids.end(),
              ids.as<std::int32_t>().begin());
    write("segment_ids", kTokenAxes, ids);
  }
  if (problem.projected > 0) {
    write("projection_k", kProjectionAxes, inputs.projection_k);
    write("projection_v", kProjectionAxes, inputs.projection_v);
  }
  write_file_atomically(path, h5::take_image(std::move(file)));
}

}  // namespace sp
