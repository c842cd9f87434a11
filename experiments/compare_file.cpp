// SPDX-License-Identifier: Apache-2.0
#include "experiments/compare_file.hpp"

#include <fmt/format.h>
#include <hdf5_hl.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/papers/replay_file.hpp"
#include "harness/results/foreign_file.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/schema.hpp"

namespace sp {
namespace {

constexpr const char* kRun = "seqpar.run";
constexpr const char* kReplay = "seqpar.replay";
constexpr std::int64_t kMostElements = 10'000'000;
constexpr const char* kSampleAxis = "repetition";

std::int64_t size_of(const h5::Dataset& dataset, const std::string& name) {
  std::int64_t size = 1;
  for (const std::int64_t extent : dataset.shape) size *= extent;
  require_usage(size <= kMostElements,
                fmt::format("data set {} has {} elements; allowed: {}", name, size, kMostElements));
  return size;
}

bool holds_numbers(const h5::Dataset& dataset) {
  const H5T_class_t type = H5Tget_class(dataset.type);
  return type == H5T_FLOAT || type == H5T_INTEGER;
}

std::vector<double> read_numbers(const h5::Dataset& dataset, const std::string& name) {
  std::vector<double> values(static_cast<std::size_t>(size_of(dataset, name)));
  h5::read_dataset(dataset, H5T_NATIVE_DOUBLE, values.data());
  return values;
}

// The points of an axis as a reader of the row needs them: a name alone, a number with its axis.
std::vector<std::string> read_axis(hid_t file, const std::string& name) {
  const h5::Dataset dataset = h5::open_dataset(file, name);
  std::vector<std::string> points;
  if (holds_numbers(dataset)) {
    for (const double value : read_numbers(dataset, name))
      points.push_back(fmt::format("{} {}", name, value));
    return points;
  }
  require_usage(H5Tis_variable_str(dataset.type) > 0,
                fmt::format("axis {} holds neither numbers nor strings", name));
  std::vector<char*> texts(static_cast<std::size_t>(size_of(dataset, name)), nullptr);
  h5::read_dataset(dataset, h5::string_type(H5T_VARIABLE), static_cast<void*>(texts.data()));
  for (char* text : texts) {
    points.emplace_back(text == nullptr ? "" : text);
    H5free_memory(text);
  }
  return points;
}

std::string label_of(const h5::Dataset& dataset, unsigned axis, const std::string& name) {
  char text[64] = "";
  const ssize_t length = H5DSget_label(dataset.id, axis, text, sizeof text);
  require_usage(length > 0 && length < static_cast<ssize_t>(sizeof text),
                fmt::format("axis {} of data set {} has no name", axis, name));
  return text;
}

class RunReader {
 public:
  explicit RunReader(hid_t file) : file_(file), kind_(text_attribute(file, "kind").value_or("")) {
    require_usage(kind_ == "measured" || kind_ == "simulated",
                  fmt::format("kind is '{}'; allowed: measured, simulated", kind_));
  }

  void add(const std::string& group_name, std::vector<StoredNumber>& to) {
    const h5::Handle group = h5::open_group(file_, group_name);
    for (const h5::Item& item : h5::list_items(group)) {
      if (item.kind != h5::ItemKind::kDataset) continue;
      const h5::Dataset dataset = h5::open_dataset(group, item.name);
      if (!holds_numbers(dataset)) continue;
      // Costs are counted, but for the share of an ideal time.
      const bool counted = group_name == "cost" && item.name != "percent_of_ideal";
      add_dataset(dataset, item.name, counted ? "counted" : kind_, to);
    }
  }

 private:
  void add_dataset(const h5::Dataset& dataset, const std::string& name, const std::string& kind,
                   std::vector<StoredNumber>& to) {
    const std::vector<double> values = read_numbers(dataset, name);
    std::vector<const std::vector<std::string>*> axes;
    std::size_t repetitions = 1;
    for (unsigned axis = 0; axis < dataset.shape.size(); ++axis) {
      const std::string label = label_of(dataset, axis, name);
      const auto extent = static_cast<std::size_t>(dataset.shape[axis]);
      if (label == kSampleAxis && axis + 1 == dataset.shape.size()) {
        repetitions = extent;
      } else {
        axes.push_back(&points(label));
        require_usage(axes.back()->size() == extent,
                      fmt::format("axis {} of data set {} has {} points and {} elements", label,
                                  name, axes.back()->size(), extent));
      }
    }
    const auto unit = text_attribute(dataset.id, "units").value_or("1");
    for (std::size_t at = 0; at * repetitions < values.size(); ++at) {
      StoredNumber number{row_name(axes, at), name, unit, kind, {}};
      for (std::size_t i = 0; i < repetitions; ++i) {
        const double value = values[at * repetitions + i];
        if (!std::isnan(value)) number.samples.push_back(value);
      }
      to.push_back(std::move(number));
    }
  }

  const std::vector<std::string>& points(const std::string& axis) {
    const auto known = axes_.find(axis);
    return (known != axes_.end() ? known : axes_.emplace(axis, read_axis(file_, axis)).first)
        ->second;
  }

  static std::string row_name(const std::vector<const std::vector<std::string>*>& axes,
                              std::size_t at) {
    std::string name;
    for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
      const std::string& point = (**axis)[at % (*axis)->size()];
      at /= (*axis)->size();
      name = name.empty() ? point : point + ", " + name;
    }
    return name;
  }

  hid_t file_;
  std::string kind_;
  std::map<std::string, std::vector<std::string>> axes_;
};

StoredNumbers read_run(const std::string& path, std::int64_t) {
  const h5::Handle file = h5::open_file(path);
  StoredNumbers stored{text_attribute(file, "schema_name").value_or(""), {}};
  if (stored.schema == kReplay) return stored;
  require_usage(stored.schema == kRun,
                fmt::format("schema_name is '{}'; allowed: {}, {}", stored.schema, kRun, kReplay));
  RunReader reader(file);
  const std::vector<h5::Item> items = h5::list_items(file);
  for (const char* group : {"samples", "cost", "verification"}) {
    const auto is_group = [&](const h5::Item& item) {
      return item.name == group && item.kind == h5::ItemKind::kGroup;
    };
    if (std::any_of(items.begin(), items.end(), is_group)) reader.add(group, stored.numbers);
  }
  return stored;
}

}  // namespace

StoredNumbers read_stored_numbers(const std::string& path) {
  StoredNumbers stored = read_foreign_file(path, read_run);
  if (stored.schema != kReplay) return stored;
  for (const ReplayRow& row : read_replay(path).result.rows) {
    StoredNumber number{row.label, row.quantity, row.unit, name_of(row.provenance), {}};
    if (!std::isnan(row.ours)) number.samples.push_back(row.ours);
    stored.numbers.push_back(std::move(number));
  }
  return stored;
}

}  // namespace sp
