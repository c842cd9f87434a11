// SPDX-License-Identifier: Apache-2.0
#include "harness/results/tensor_data.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "harness/results/hdf5_attributes.hpp"

namespace sp {
namespace {

// Deflate cannot shrink data more than 1032 times; the constant allows for small data sets that
// were never written, which read as zeros.
constexpr std::int64_t kMaxInflation = 1100;
constexpr std::int64_t kUnwrittenBytes = std::int64_t{1} << 26;

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kUsage, message);
}

// HDF5 names no 16-bit floating types; this is how h5py, and later HDF5 versions, build them.
h5::Handle float16_bits(std::size_t exponent_bits, H5T_order_t order) {
  const std::size_t fraction_bits = 15 - exponent_bits;
  h5::Handle type = h5::own(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, ErrorKind::kEnvironment,
                            "build a 16-bit floating type");
  H5Tset_fields(type, 15, fraction_bits, exponent_bits, 0, fraction_bits);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, (std::size_t{1} << (exponent_bits - 1)) - 1);
  H5Tset_order(type, order);
  return type;
}
h5::Handle half_type(H5T_order_t order = H5T_ORDER_LE) { return float16_bits(5, order); }
h5::Handle bfloat16_type(H5T_order_t order = H5T_ORDER_LE) { return float16_bits(8, order); }

bool same(hid_t a, hid_t b) { return H5Tequal(a, b) > 0; }

std::optional<DType> stored_dtype(hid_t type, const std::optional<std::string>& encoding) {
  if (encoding) {
    const bool words = H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 2 &&
                       H5Tget_sign(type) == H5T_SGN_NONE;
    if (words && *encoding == "bfloat16") return DType::kBF16;
    if (words && *encoding == "float16") return DType::kF16;
    return std::nullopt;
  }
  if (same(type, H5T_IEEE_F64LE) || same(type, H5T_IEEE_F64BE)) return DType::kF64;
  if (same(type, H5T_IEEE_F32LE) || same(type, H5T_IEEE_F32BE)) return DType::kF32;
  if (same(type, half_type()) || same(type, half_type(H5T_ORDER_BE))) return DType::kF16;
  if (same(type, bfloat16_type()) || same(type, bfloat16_type(H5T_ORDER_BE))) return DType::kBF16;
  return std::nullopt;
}

h5::Handle memory_type(DType dtype, bool words) {
  if (words) return {H5Tcopy(H5T_NATIVE_UINT16), H5Tclose};
  switch (dtype) {
    case DType::kF64:
      return {H5Tcopy(H5T_NATIVE_DOUBLE), H5Tclose};
    case DType::kF16:
      return half_type();
    case DType::kBF16:
      return bfloat16_type();
    case DType::kF32:
    case DType::kI32:
      break;
  }
  return {H5Tcopy(H5T_NATIVE_FLOAT), H5Tclose};
}

std::optional<std::string> encoding_of(const h5::Dataset& dataset, const std::string& name) {
  const std::optional<h5::Value> value = h5::read_attribute(dataset.id, "encoding");
  if (!value) return std::nullopt;
  const auto* text = std::get_if<std::string>(&*value);
  require(text != nullptr, fmt::format("attribute encoding of data set {} is not a string; "
                                       "allowed: bfloat16, float16",
                                       name));
  return *text;
}

// The axes of that many dimensions; null if there are none.
const Axes* axes_of(const AxesChoice& choice, std::size_t dimensions) {
  const auto found = std::find_if(choice.begin(), choice.end(),
                                  [&](const Axes& axes) { return axes.size() == dimensions; });
  return found == choice.end() ? nullptr : &*found;
}

std::string describe(const AxesChoice& choice) {
  std::vector<std::string> texts;
  for (const Axes& axes : choice) {
    texts.push_back(fmt::format("{} dimension{} [{}]", axes.size(), axes.size() == 1 ? "" : "s",
                                fmt::join(axes, ", ")));
  }
  return fmt::format("{}", fmt::join(texts, " or "));
}

h5::Dataset open(hid_t file, const std::string& name, const AxesChoice& axes,
                 std::int64_t file_bytes) {
  h5::Dataset dataset = h5::open_dataset(file, name);
  require(axes_of(axes, dataset.shape.size()) != nullptr,
          fmt::format("data set {} has shape {}; allowed: {}", name, describe_shape(dataset.shape),
                      describe(axes)));
  auto bytes = static_cast<std::int64_t>(std::clamp<std::size_t>(H5Tget_size(dataset.type), 1, 64));
  for (const std::int64_t extent : dataset.shape) bytes *= extent;
  require(bytes <= kUnwrittenBytes + kMaxInflation * file_bytes,
          fmt::format("data set {} claims shape {}, more than the file can hold", name,
                      describe_shape(dataset.shape)));
  return dataset;
}

void read(const h5::Dataset& dataset, const std::string& name, hid_t type, void* to) {
  try {
    h5::read_dataset(dataset, type, to);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("data set {}: {}", name, error.what()));
  }
}

}  // namespace

HostTensor read_tensor(hid_t file, const std::string& name, const AxesChoice& axes,
                       std::int64_t file_bytes) {
  const h5::Dataset dataset = open(file, name, axes, file_bytes);
  const std::optional<std::string> encoding = encoding_of(dataset, name);
  const std::optional<DType> dtype = stored_dtype(dataset.type, encoding);
  require(dtype.has_value(),
          fmt::format("data set {} has an unsupported type; allowed: float64, float32, float16, or "
                      "uint16 with attribute encoding = \"bfloat16\" or \"float16\"",
                      name));
  HostTensor tensor(*dtype, dataset.shape);
  read(dataset, name, memory_type(*dtype, encoding.has_value()), tensor.data());
  return tensor;
}

HostTensor read_int32_tensor(hid_t file, const std::string& name, const Axes& axes,
                             std::int64_t file_bytes) {
  const h5::Dataset dataset = open(file, name, AxesChoice{axes}, file_bytes);
  require(H5Tget_class(dataset.type) == H5T_INTEGER,
          fmt::format("data set {} has an unsupported type; allowed: int32", name));
  HostTensor tensor(DType::kI32, dataset.shape);
  std::vector<std::int64_t> wide(static_cast<std::size_t>(tensor.size()));
  read(dataset, name, H5T_NATIVE_INT64, wide.data());
  const std::span<std::int32_t> values = tensor.as<std::int32_t>();
  for (std::size_t i = 0; i < wide.size(); ++i) {
    values[i] = static_cast<std::int32_t>(wide[i]);
    require(values[i] == wide[i],
            fmt::format("data set {} holds {} at element {}; allowed: {}..{}", name, wide[i], i,
                        std::numeric_limits<std::int32_t>::min(),
                        std::numeric_limits<std::int32_t>::max()));
  }
  return tensor;
}

void write_tensor(hid_t file, const std::string& name, const AxesChoice& choice,
                  const HostTensor& tensor) {
  const Axes* axes = axes_of(choice, tensor.shape().size());
  SP_CHECK(axes != nullptr, "a tensor has other dimensions than its data set " + name);
  const bool words = tensor.dtype() == DType::kBF16;
  const h5::Handle type = tensor.dtype() == DType::kI32
                              ? h5::Handle{H5Tcopy(H5T_NATIVE_INT32), H5Tclose}
                              : memory_type(tensor.dtype(), words);
  const h5::Handle dataset = h5::write_dataset(file, name, type, tensor.shape(), tensor.data());
  if (words) h5::write_attribute(dataset, "encoding", std::string("bfloat16"));
  for (unsigned axis = 0; axis < axes->size(); ++axis) {
    h5::label_axis(dataset, axis, (*axes)[axis]);
  }
}

}  // namespace sp
