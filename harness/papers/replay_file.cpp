// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/replay_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "harness/papers/sha256.hpp"
#include "harness/results/foreign_file.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/heap_text.hpp"
#include "harness/results/run_writer.hpp"
#include "harness/results/schema.hpp"

namespace sp {
namespace {

constexpr const char* kSchema = "seqpar.replay";
constexpr const char* kVersion = "1.0.0";
constexpr std::int64_t kMostRows = 1'000'000;
constexpr std::array kVerdicts{ClaimVerdict::kReproduced, ClaimVerdict::kNotReproduced,
                               ClaimVerdict::kNotCheckable, ClaimVerdict::kContext};
constexpr std::array kProvenances{Provenance::kFormula, Provenance::kCounted,
                                  Provenance::kSimulated, Provenance::kMeasured};
constexpr std::array kGrades{Grade::kPrinted, Grade::kText, Grade::kPicture, Grade::kSecondary,
                             Grade::kDerived};

template <class List>
auto named(const std::string& name, const List& values, const char* what) {
  for (const auto value : values) {
    if (name_of(value) == name) return value;
  }
  throw Error(ErrorKind::kUsage, fmt::format("'{}' is no {}", name, what));
}

// Columns of rows, in the order of the schema; the same list writes and reads.
struct TextColumn {
  const char* name;
  const char* meaning;
  std::string (*get)(const ReplayRow&);
  void (*set)(ReplayRow&, const std::string&);
};
const std::array kTexts{
    TextColumn{"label", "which row of the item", [](const ReplayRow& r) { return r.label; },
               [](ReplayRow& r, const std::string& t) { r.label = t; }},
    TextColumn{"quantity", "what is compared", [](const ReplayRow& r) { return r.quantity; },
               [](ReplayRow& r, const std::string& t) { r.quantity = t; }},
    TextColumn{"unit", "of paper_value, ours and rounding",
               [](const ReplayRow& r) { return r.unit; },
               [](ReplayRow& r, const std::string& t) { r.unit = t; }},
    TextColumn{"grade", "how the paper's number is known",
               [](const ReplayRow& r) { return name_of(r.grade); },
               [](ReplayRow& r, const std::string& t) { r.grade = named(t, kGrades, "grade"); }},
    TextColumn{"provenance", "how our number came about",
               [](const ReplayRow& r) { return name_of(r.provenance); },
               [](ReplayRow& r, const std::string& t) {
                 r.provenance = named(t, kProvenances, "provenance");
               }},
    TextColumn{
        "verdict", "what became of the row", [](const ReplayRow& r) { return name_of(r.verdict); },
        [](ReplayRow& r, const std::string& t) { r.verdict = named(t, kVerdicts, "verdict"); }},
    TextColumn{"reason", "why it is not reproduced or not checkable",
               [](const ReplayRow& r) { return r.reason; },
               [](ReplayRow& r, const std::string& t) { r.reason = t; }},
};
struct NumberColumn {
  const char* name;
  const char* meaning;
  const char* units;  // "as unit": the row's own
  double ReplayRow::* member;
};
constexpr std::array kNumbers{
    NumberColumn{"paper_value", "what the paper says", "as unit", &ReplayRow::paper},
    NumberColumn{"ours", "what came out here", "as unit", &ReplayRow::ours},
    NumberColumn{"band", "relative uncertainty of ours", "1", &ReplayRow::band},
    NumberColumn{"rounding", "half a unit of the paper's last digit", "as unit",
                 &ReplayRow::rounding},
};

void write_rows(hid_t file, const std::vector<ReplayRow>& rows) {
  std::vector<std::int64_t> numbers(rows.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  const RunAxis axis = write_axis(file, "row", "number of the row", numbers);
  for (const TextColumn& column : kTexts) {
    std::vector<std::string> values;
    for (const ReplayRow& row : rows) values.push_back(column.get(row));
    write_column(file, column.name, column.meaning, {&axis}, values);
  }
  for (const NumberColumn& column : kNumbers) {
    std::vector<double> values;
    for (const ReplayRow& row : rows) values.push_back(row.*column.member);
    write_column(file, column.name, column.meaning, {&axis}, column.units, values);
  }
  std::vector<double> errors;
  for (const ReplayRow& row : rows) errors.push_back(row.error());
  write_column(file, "error", "ours / paper_value - 1", {&axis}, "1", errors);
  std::vector<std::int64_t> fitted;
  for (const ReplayRow& row : rows) fitted.push_back(row.fitted ? 1 : 0);
  write_column(file, "fitted", "1: the calibration used this row", {&axis}, "1", fitted);
}

void write_findings(hid_t file, const std::vector<std::string>& findings) {
  std::vector<std::int64_t> numbers(findings.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  const RunAxis axis = write_axis(file, "finding", "number of the finding", numbers);
  write_column(file, "findings", "what came out, one sentence each", {&axis}, findings);
}

void write_curves(hid_t file, const std::vector<ReplayCurve>& curves) {
  const h5::Handle all = h5::create_group(file, "curves");
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const ReplayCurve& curve = curves[i];
    SP_CHECK(curve.xs.size() == curve.ys.size(), curve.name + ": points without x or y");
    const h5::Handle group = h5::create_group(all, fmt::format("{:03}", i));
    h5::write_attribute(group, "plot", curve.plot);
    h5::write_attribute(group, "name", curve.name);
    h5::write_attribute(group, "x_label", curve.x);
    h5::write_attribute(group, "y_label", curve.y);
    h5::write_attribute(group, "from_paper", std::int64_t{curve.from_paper});
    h5::write_attribute(group, "provenance", name_of(curve.provenance));
    const auto points = static_cast<std::int64_t>(curve.xs.size());
    const h5::Handle x =
        h5::write_dataset(group, "x", H5T_NATIVE_DOUBLE, {&points, 1}, curve.xs.data());
    h5::write_attribute(x, "long_name", curve.x);
    h5::make_scale(x, "x");
    const h5::Handle y =
        h5::write_dataset(group, "y", H5T_NATIVE_DOUBLE, {&points, 1}, curve.ys.data());
    h5::write_attribute(y, "long_name", curve.y);
    h5::attach_scale(y, x, 0);
    h5::label_axis(y, 0, "x");
  }
}

void write_text(hid_t group, const std::string& name, const std::string& text) {
  const char* chars = text.c_str();
  h5::write_dataset(group, name, h5::string_type(H5T_VARIABLE), {},
                    static_cast<const void*>(&chars));
}

// `size` elements, or a scalar for 1.
h5::Dataset open_sized(hid_t where, const std::string& name, std::int64_t size) {
  h5::Dataset dataset = h5::open_dataset(where, name);
  std::int64_t elements = 1;
  for (const std::int64_t extent : dataset.shape) elements *= extent;
  require_usage(elements == size,
                fmt::format("data set {} has {} elements; allowed: {}", name, elements, size));
  return dataset;
}

std::int64_t size_of_axis(hid_t where, const std::string& name) {
  const h5::Dataset axis = h5::open_dataset(where, name);
  require_usage(axis.shape.size() == 1 && axis.shape[0] <= kMostRows,
                fmt::format("data set {} is no axis of up to {}", name, kMostRows));
  return axis.shape[0];
}

std::vector<std::string> read_strings(hid_t where, const std::string& name, std::int64_t size) {
  const h5::Dataset dataset = open_sized(where, name, size);
  require_usage(H5Tget_class(dataset.type) == H5T_STRING && H5Tis_variable_str(dataset.type) > 0,
                fmt::format("data set {} does not hold strings of any length", name));
  return read_heap_texts(name, [&] {
    const h5::Handle memory = h5::string_type(H5T_VARIABLE);
    std::vector<char*> chars(static_cast<std::size_t>(size), nullptr);
    h5::read_dataset(dataset, memory, static_cast<void*>(chars.data()));
    std::vector<std::string> values;
    for (char* text : chars) {
      values.emplace_back(text == nullptr ? "" : text);
      H5free_memory(text);
    }
    return values;
  });
}

std::vector<double> read_numbers(hid_t where, const std::string& name, std::int64_t size) {
  const h5::Dataset dataset = open_sized(where, name, size);
  const H5T_class_t kind = H5Tget_class(dataset.type);
  require_usage(kind == H5T_FLOAT || kind == H5T_INTEGER,
                fmt::format("data set {} does not hold numbers", name));
  std::vector<double> values(static_cast<std::size_t>(size));
  h5::read_dataset(dataset, H5T_NATIVE_DOUBLE, values.data());
  return values;
}

std::string required(hid_t where, const std::string& name) {
  const auto text = text_attribute(where, name);
  require_usage(text.has_value(), fmt::format("attribute {} is missing", name));
  return *text;
}

std::vector<ReplayRow> read_rows(hid_t file) {
  const std::int64_t size = size_of_axis(file, "row");
  std::vector<ReplayRow> rows(static_cast<std::size_t>(size));
  for (const TextColumn& column : kTexts) {
    const auto values = read_strings(file, column.name, size);
    for (std::size_t i = 0; i < rows.size(); ++i) column.set(rows[i], values[i]);
  }
  for (const NumberColumn& column : kNumbers) {
    const auto values = read_numbers(file, column.name, size);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i].*column.member = values[i];
  }
  const auto fitted = read_numbers(file, "fitted", size);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].fitted = fitted[i] != 0;
  return rows;
}

ReplayCurve read_curve(hid_t curves, const std::string& name) {
  const h5::Handle group = h5::open_group(curves, name);
  ReplayCurve curve;
  curve.plot = required(group, "plot");
  curve.name = required(group, "name");
  curve.x = required(group, "x_label");
  curve.y = required(group, "y_label");
  curve.from_paper = integer_attribute(group, "from_paper").value_or(0) != 0;
  curve.provenance = named(required(group, "provenance"), kProvenances, "provenance");
  const std::int64_t points = size_of_axis(group, "x");
  curve.xs = read_numbers(group, "x", points);
  curve.ys = read_numbers(group, "y", points);
  return curve;
}

ReplayRecord read_raw(const std::string& path, std::int64_t) {
  const h5::Handle file = h5::open_file(path);
  const std::string schema = text_attribute(file, "schema_name").value_or("");
  require_usage(schema == kSchema,
                fmt::format("schema_name is '{}'; allowed: {}", schema, kSchema));
  const std::string version = required(file, "schema_version");
  require_usage(version.starts_with("1."),
                fmt::format("schema_version is '{}'; allowed: 1.x", version));
  ReplayRecord record;
  record.item = required(file, "item");
  record.title = required(file, "title");
  record.paper = required(file, "paper");
  record.command_line = required(file, "command_line");
  record.software = required(file, "software");
  record.result.verdict = named(required(file, "verdict"), kVerdicts, "verdict");
  record.result.reason = required(file, "reason");
  record.result.assumption = required(file, "assumption");
  record.result.rows = read_rows(file);
  record.result.findings = read_strings(file, "findings", size_of_axis(file, "finding"));
  const h5::Handle curves = h5::open_group(file, "curves");
  for (const h5::Item& item : h5::list_items(curves))
    record.result.curves.push_back(read_curve(curves, item.name));
  const h5::Handle config = h5::open_group(file, "config");
  record.config = read_strings(config, "toml", 1).front();
  record.platforms = read_strings(config, "platform", 1).front();
  return record;
}

}  // namespace

void write_replay(const std::string& path, const ReplayRecord& record,
                  const Environment& environment) {
  RunFile run{h5::create_image(), h5::Handle(H5I_INVALID_HID, H5Gclose)};
  const auto attribute = [&](const char* name, const std::string& text) {
    h5::write_attribute(run.file, name, text);
  };
  attribute("schema_name", kSchema);
  attribute("schema_version", kVersion);
  attribute("created_utc", environment.at("created_utc"));
  attribute("software_version", environment.at("software_version"));
  attribute("software", record.software);
  attribute("kind", "simulated");
  attribute("item", record.item);
  attribute("title", record.title);
  attribute("paper", record.paper);
  attribute("verdict", name_of(record.result.verdict));
  attribute("reason", record.result.reason);
  attribute("assumption", record.result.assumption);
  attribute("config_sha256", sha256(record.config));
  attribute("command_line", record.command_line);
  write_rows(run.file, record.result.rows);
  write_findings(run.file, record.result.findings);
  write_curves(run.file, record.result.curves);
  run.config = h5::create_group(run.file, "config");
  write_text(run.config, "toml", record.config);
  write_text(run.config, "platform", record.platforms);
  write_environment(run.file, environment);
  finish_run(path, std::move(run));
}

ReplayRecord read_replay(const std::string& path) { return read_foreign_file(path, read_raw); }

std::string replay_key(const ReplayRecord& record) {
  std::string text;
  for (const std::string* part :
       {&record.item, &record.config, &record.platforms, &record.software})
    text += fmt::format("{}:{};", part->size(), *part);
  return sha256(text);
}

}  // namespace sp
