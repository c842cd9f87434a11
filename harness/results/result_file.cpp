// SPDX-License-Identifier: Apache-2.0
#include "harness/results/result_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "harness/results/atomic_file.hpp"
#include "harness/results/foreign_file.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/schema.hpp"
#include "harness/results/tensor_data.hpp"

namespace sp {
namespace {

constexpr const char* kSchema = "seqpar.result";

struct Field {
  const char* name;
  AxesChoice axes;
  HostTensor Outputs::* tensor;
};

const std::vector<Field>& fields() {
  static const std::vector<Field> all{
      {"out", {Axes{"B", "N", "H", "E"}}, &Outputs::out},
      {"lse", {Axes{"B", "H", "N"}}, &Outputs::lse},
      {"d_q", {Axes{"B", "N", "H", "D"}}, &Outputs::d_q},
      {"d_k", {Axes{"B", "N", "G", "D"}}, &Outputs::d_k},
      {"d_v", {Axes{"B", "N", "G", "E"}}, &Outputs::d_v},
      {"d_projection_k", {Axes{"N", "K'"}}, &Outputs::d_projection_k},
      {"d_projection_v", {Axes{"N", "K'"}}, &Outputs::d_projection_v},
      {"d_log_decay", {Axes{"H"}, {"B", "N", "H", "D"}}, &Outputs::d_log_decay},
      {"d_gamma", {Axes{"D"}}, &Outputs::d_gamma},
      {"d_beta", {Axes{"D"}}, &Outputs::d_beta},
  };
  return all;
}

ResultInfo read_info(hid_t file) {
  ResultInfo info;
  info.algorithm = text_attribute(file, "algorithm").value_or("");
  info.backend = text_attribute(file, "backend").value_or("");
  info.ranks = integer_attribute(file, "ranks").value_or(0);
  info.bytes_sent_per_rank =
      integers_attribute(file, "bytes_sent_per_rank").value_or(std::vector<std::int64_t>{});
  info.messages_per_rank =
      integers_attribute(file, "messages_per_rank").value_or(std::vector<std::int64_t>{});
  return info;
}

ResultFile read_raw(const std::string& path, std::int64_t file_bytes) {
  const h5::Handle file = h5::open_file(path);
  if (h5::read_attribute(file, "schema")) check_schema(file, kSchema);
  ResultFile result;
  result.info = read_info(file);
  std::vector<std::string> names;
  for (const Field& field : fields()) names.emplace_back(field.name);
  const auto present = check_dataset_names(file, names, "", Groups::kAllowed);
  for (const Field& field : fields()) {
    if (std::find(present.begin(), present.end(), field.name) == present.end()) continue;
    result.outputs.*field.tensor = read_tensor(file, field.name, field.axes, file_bytes);
  }
  require_usage(!result.outputs.out.absent(), "data set out is missing; required: out");
  return result;
}

}  // namespace

ResultFile read_result(const std::string& path) { return read_foreign_file(path, read_raw); }

ResultFile read_result_unprotected(const std::string& path, std::int64_t file_bytes) {
  return read_raw(path, file_bytes);
}

namespace {

void write_as(const char* schema, const std::string& path, const Problem& problem,
              const Outputs& outputs, const ResultInfo& info, const Environment& environment) {
  h5::Handle file = h5::create_image();
  write_schema(file, schema);
  h5::write_attribute(file, "algorithm", info.algorithm);
  h5::write_attribute(file, "backend", info.backend);
  h5::write_attribute(file, "ranks", info.ranks);
  h5::write_attribute(file, "bytes_sent_per_rank", info.bytes_sent_per_rank);
  h5::write_attribute(file, "messages_per_rank", info.messages_per_rank);
  h5::write_attribute(file, "problem", describe(problem));
  for (const Field& field : fields()) {
    const HostTensor& tensor = outputs.*field.tensor;
    if (!tensor.absent()) write_tensor(file, field.name, field.axes, tensor);
  }
  write_environment(file, environment);
  write_file_atomically(path, h5::take_image(std::move(file)));
}

}  // namespace

void write_result(const std::string& path, const Problem& problem, const Outputs& outputs,
                  const ResultInfo& info, const Environment& environment) {
  SP_CHECK(!outputs.out.absent(), "a result without out");
  write_as(kSchema, path, problem, outputs, info, environment);
}

void write_errors(const std::string& path, const Problem& problem, const Outputs& errors,
                  const ResultInfo& info, const Environment& environment) {
  write_as("seqpar.errors", path, problem, errors, info, environment);
}

}  // namespace sp
