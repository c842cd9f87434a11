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
// Heads that cost nothing in a file without tokens must not cost memory by a rule for their decays.
constexpr std::int64_t kMostHeadsByRule = 1 << 16;
const Axes kTokenAxes{"B", "N"};

enum class Need { kRefused, kOptional, kRequired };

struct Field {
  const char* name;
  AxesChoice axes;
  HostTensor Inputs::* tensor;
  Need (*need)(const Problem&);  // what the attributes alone say
  bool accumulator = false;      // held in the accumulator type, not in the type of q
};

Need always(const Problem&) { return Need::kRequired; }
Need at_will(const Problem&) { return Need::kOptional; }
Need with_softmax(const Problem& problem) {
  return problem.module ? Need::kRefused : Need::kOptional;
}
Need with_decay(const Problem& problem) {
  const Decay decay = problem.module ? decay_of(*problem.module) : Decay::kNone;
  if (decay == Decay::kNone) return Need::kRefused;
  return decay == Decay::kPerHead ? Need::kOptional : Need::kRequired;
}
Need with_rebased(const Problem& problem) {
  return problem.module == Module::kRebased ? Need::kRequired : Need::kRefused;
}

// q comes first: its type is that of the problem.
const std::vector<Field>& fields() {
  static const std::vector<Field> all{
      {"q", {Axes{"B", "N", "H", "D"}}, &Inputs::q, always},
      {"k", {Axes{"B", "N", "G", "D"}}, &Inputs::k, always},
      {"v", {Axes{"B", "N", "G", "E"}}, &Inputs::v, always},
      {"d_out", {Axes{"B", "N", "H", "E"}}, &Inputs::d_out, at_will},
      {"projection_k", {Axes{"N", "K'"}}, &Inputs::projection_k, with_softmax},
      {"projection_v", {Axes{"N", "K'"}}, &Inputs::projection_v, with_softmax},
      {"log_decay",
       {Axes{"H"}, {"B", "N", "H", "D"}},
       &Inputs::log_decay,
       with_decay,
       /*accumulator=*/true},
      {"gamma", {Axes{"D"}}, &Inputs::gamma, with_rebased, /*accumulator=*/true},
      {"beta", {Axes{"D"}}, &Inputs::beta, with_rebased, /*accumulator=*/true},
  };
  return all;
}

const char* attention_of(const Problem& problem) {
  if (!problem.layers.empty()) return "hybrid";
  return problem.module ? "linear" : "softmax";
}

std::string where(const Problem& problem) {
  std::string text = fmt::format(" with attention = \"{}\"", attention_of(problem));
  if (problem.module) text += fmt::format(", module = \"{}\"", name_of(*problem.module));
  return text;
}

std::string module_names() {
  std::vector<std::string_view> names;
  for (const Module module : kModules) names.push_back(name_of(module));
  return fmt::format("{}", fmt::join(names, ", "));
}

void read_module(hid_t file, bool hybrid, Problem& problem) {
  const auto module = text_attribute(file, "module");
  require_usage(module.has_value(),
                fmt::format("attribute module is missing; allowed: {}", module_names()));
  problem.module = parse_module(*module);
  problem.epsilon = real_attribute(file, "epsilon").value_or(default_epsilon(*problem.module));
  if (!hybrid) return;
  problem.layers = text_attribute(file, "layers").value_or("");
  require_usage(!problem.layers.empty(),
                "attribute layers is missing or empty; allowed: one letter for each layer, L "
                "(linear) or N (softmax)");
}

void read_attributes(hid_t file, Problem& problem) {
  check_schema(file, kSchema);
  std::vector<std::string> names{"schema", "schema_version", "attention",
                                 "causal", "scale",          "window"};
  const std::string attention = text_attribute(file, "attention").value_or("softmax");
  const bool hybrid = attention == "hybrid";
  require_usage(
      hybrid || attention == "linear" || attention == "softmax",
      fmt::format("attribute attention = \"{}\"; allowed: softmax, linear, hybrid", attention));
  if (attention != "softmax") {
    read_module(file, hybrid, problem);
    names.insert(names.end(), {"module", "epsilon"});
    if (hybrid) names.emplace_back("layers");
  }
  check_attribute_names(file, names, where(problem));
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
}

void read_scale(hid_t file, Problem& problem) {
  const double usual = problem.family() == Family::kLinear ? 1 : default_scale(problem.shape);
  const auto scale = real_attribute(file, "scale");
  require_usage(std::isfinite(scale.value_or(1)),
                fmt::format("attribute scale = {}; allowed: a finite number", scale.value_or(1)));
  problem.scale = scale.value_or(usual);
}

HostTensor read_field(hid_t file, const Field& field, DType storage, std::int64_t file_bytes) {
  HostTensor tensor = read_tensor(file, field.name, field.axes, file_bytes);
  if (!field.accumulator) return tensor;
  require_usage(tensor.dtype() == DType::kF64 || tensor.dtype() == DType::kF32,
                fmt::format("data set {} has type {}; allowed: float64, float32", field.name,
                            name_of(tensor.dtype())));
  return tensor.cast(accumulator_of(storage));
}

void read_fields(hid_t file, std::int64_t file_bytes, const std::vector<std::string>& present,
                 ProblemFile& result) {
  std::vector<const char*> required;
  for (const Field& field : fields()) {
    if (field.need(result.problem) == Need::kRequired) required.push_back(field.name);
  }
  Inputs& inputs = result.inputs;
  for (const Field& field : fields()) {
    const Need need = field.need(result.problem);
    const bool has = std::find(present.begin(), present.end(), field.name) != present.end();
    require_usage(has || need != Need::kRequired,
                  fmt::format("data set {} is missing; required{}: {}", field.name,
                              where(result.problem), fmt::join(required, ", ")));
    if (has) inputs.*field.tensor = read_field(file, field, inputs.q.dtype(), file_bytes);
  }
  require_usage(inputs.projection_k.absent() == inputs.projection_v.absent(),
                "one of data sets projection_k, projection_v is missing; allowed: both or none");
}

// The shape that q, k, v and the projection claim; that all tensors agree is validate()'s part.
void derive_shape(ProblemFile& file) {
  Problem& problem = file.problem;
  const Inputs& inputs = file.inputs;
  const std::int64_t layers = problem.layer_count(), heads = inputs.k.extent(2);
  require_usage(heads % layers == 0,
                fmt::format("data set k has {} heads for {} layers \"{}\"; allowed: G heads for "
                            "each layer",
                            heads, layers, problem.layers));
  problem.dtype = inputs.q.dtype();
  problem.shape = {.B = inputs.q.extent(0),
                   .N = inputs.q.extent(1),
                   .H = inputs.q.extent(2),
                   .G = heads / layers,
                   .D = inputs.q.extent(3),
                   .E = inputs.v.extent(3)};
  if (inputs.projection_k.absent()) return;
  problem.projected = inputs.projection_k.extent(1);
  require_usage(problem.projected >= 1,
                fmt::format("data set projection_k has shape {}; allowed: [N, K'] with K' >= 1",
                            describe_shape(inputs.projection_k.shape())));
}

void read_segment_ids(hid_t file, std::int64_t file_bytes, Problem& problem) {
  const HostTensor ids = read_int32_tensor(file, "segment_ids", kTokenAxes, file_bytes);
  require_usage(ids.extent(0) == problem.shape.B && ids.extent(1) == problem.shape.N,
                fmt::format("data set segment_ids has shape {}; allowed: [{}, {}]",
                            describe_shape(ids.shape()), problem.shape.B, problem.shape.N));
  const auto values = ids.as<std::int32_t>();
  problem.mask.segment_ids.assign(values.begin(), values.end());
}

ProblemFile read_raw(const std::string& path, std::int64_t file_bytes) {
  const h5::Handle file = h5::open_file(path);
  ProblemFile result;
  read_attributes(file, result.problem);
  std::vector<std::string> names;
  for (const Field& field : fields()) {
    if (field.need(result.problem) != Need::kRefused) names.emplace_back(field.name);
  }
  names.emplace_back("segment_ids");
  const auto present = check_dataset_names(file, names, where(result.problem), Groups::kRefused);
  read_fields(file, file_bytes, present, result);
  derive_shape(result);
  if (std::find(present.begin(), present.end(), "segment_ids") != present.end()) {
    read_segment_ids(file, file_bytes, result.problem);
  }
  read_scale(file, result.problem);
  return result;
}

// Decays that the file leaves to the rule of its module.
void add_decays(const Problem& problem, Inputs& inputs) {
  if (with_decay(problem) != Need::kOptional || !inputs.log_decay.absent()) return;
  const std::int64_t H = problem.shape.H;
  require_usage(H <= kMostHeadsByRule,
                fmt::format("query heads H = {} without data set log_decay; allowed: {}", H,
                            kMostHeadsByRule));
  inputs.log_decay = HostTensor::from_doubles(accumulator_of(problem.dtype), {H},
                                              default_log_decay(*problem.module, H));
}

void check_problem(ProblemFile& file) {
  validate(file.problem);
  add_decays(file.problem, file.inputs);
  validate(file.problem, file.inputs);
}

}  // namespace

ProblemFile read_problem(const std::string& path) {
  ProblemFile file = read_foreign_file(path, read_raw);
  try {
    check_problem(file);
  } catch (const Error& error) {
    throw Error(error.kind(), one_line(path + ": " + error.what()));
  }
  return file;
}

ProblemFile read_problem_unprotected(const std::string& path, std::int64_t file_bytes) {
  ProblemFile file = read_raw(path, file_bytes);
  check_problem(file);
  return file;
}

void write_problem(const std::string& path, const Problem& problem, const Inputs& inputs) {
  validate(problem, inputs);
  require_usage(problem.projected > 0 || inputs.projection_k.absent(),
                "tensor projection_k is present but the projected length is 0");
  h5::Handle file = h5::create_image();
  write_schema(file, kSchema);
  h5::write_attribute(file, "attention", std::string(attention_of(problem)));
  h5::write_attribute(file, "causal", std::int64_t{problem.mask.causal});
  h5::write_attribute(file, "scale", problem.scale);
  if (problem.mask.window > 0) h5::write_attribute(file, "window", problem.mask.window);
  if (problem.module) {
    h5::write_attribute(file, "module", std::string(name_of(*problem.module)));
    if (is_normalised(*problem.module)) h5::write_attribute(file, "epsilon", problem.epsilon);
  }
  if (!problem.layers.empty()) h5::write_attribute(file, "layers", problem.layers);
  for (const Field& field : fields()) {
    const HostTensor& tensor = inputs.*field.tensor;
    if (tensor.absent()) continue;
    require_usage(field.need(problem) != Need::kRefused,
                  fmt::format("tensor {} is unknown{}", field.name, where(problem)));
    write_tensor(file, field.name, field.axes, tensor);
  }
  if (!problem.mask.segment_ids.empty()) {
    HostTensor ids(DType::kI32, {problem.shape.B, problem.shape.N});
    std::copy(problem.mask.segment_ids.begin(), problem.mask.segment_ids.end(),
              ids.as<std::int32_t>().begin());
    write_tensor(file, "segment_ids", {kTokenAxes}, ids);
  }
  write_file_atomically(path, h5::take_image(std::move(file)));
}

}  // namespace sp
