// SPDX-License-Identifier: Apache-2.0
#include "harness/results/hdf5.hpp"

#include <fmt/format.h>
#include <hdf5_hl.h>

#include <algorithm>

namespace sp::h5 {
namespace {

constexpr std::int64_t kMaxElements = std::int64_t{1} << 42;
constexpr std::int64_t kChunkedFromBytes = std::int64_t{1} << 20;
constexpr std::size_t kImageIncrement = std::size_t{1} << 20;
constexpr unsigned kDeflateLevel = 4;

// Downward, the last entry is the innermost function: the one that knows what was wrong.
herr_t keep_innermost(unsigned, const H5E_error2_t* entry, void* text) noexcept {
  if (entry->desc != nullptr && *entry->desc != '\0')
    *static_cast<std::string*>(text) = entry->desc;
  return 0;
}

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kUsage, message);
}

std::vector<hsize_t> extents(std::span<const std::int64_t> shape) {
  return {shape.begin(), shape.end()};
}

// Whole trailing dimensions up to about one megabyte; leading dimensions are cut.
std::vector<hsize_t> chunk_of(std::span<const std::int64_t> shape, std::size_t element_bytes) {
  std::vector<hsize_t> chunk(shape.size(), 1);
  auto room = static_cast<hsize_t>(kChunkedFromBytes) / element_bytes;
  for (std::size_t axis = shape.size(); axis-- > 0 && room > 1;) {
    chunk[axis] = std::min(static_cast<hsize_t>(shape[axis]), room);
    room /= chunk[axis];
  }
  return chunk;
}

void silence() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

}  // namespace

void fail(ErrorKind kind, const std::string& action) {
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_innermost, &reason);
  H5Eclear2(H5E_DEFAULT);
  std::replace_if(
      reason.begin(), reason.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; },
      ' ');
  throw Error(kind, fmt::format("cannot {}{}{}", action, reason.empty() ? "" : ": ", reason));
}

Handle string_type(std::size_t bytes) {
  Handle type = own(H5Tcopy(H5T_C_S1), H5Tclose, ErrorKind::kEnvironment, "copy a string type");
  H5Tset_size(type, bytes);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

Handle open_file(const std::string& path) {
  silence();
  return own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, ErrorKind::kUsage,
             "open it as an HDF5 file");
}

Handle create_image() {
  silence();
  const Handle access =
      own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, ErrorKind::kEnvironment, "create a file in memory");
  check(H5Pset_fapl_core(access, kImageIncrement, false), ErrorKind::kEnvironment,
        "create a file in memory");
  return own(H5Fcreate("image", H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose,
             ErrorKind::kEnvironment, "create a file in memory");
}

std::vector<std::byte> take_image(Handle file) {
  const std::string action = "complete the file in memory";
  check(H5Fflush(file, H5F_SCOPE_GLOBAL), ErrorKind::kEnvironment, action);
  const ssize_t size = check(H5Fget_file_image(file, nullptr, 0), ErrorKind::kEnvironment, action);
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  check(H5Fget_file_image(file, bytes.data(), bytes.size()), ErrorKind::kEnvironment, action);
  return bytes;
}

Handle open_group(hid_t where, const std::string& name) {
  return own(H5Gopen2(where, name.c_str(), H5P_DEFAULT), H5Gclose, ErrorKind::kUsage,
             "open group " + name);
}

Handle create_group(hid_t where, const std::string& name) {
  return own(H5Gcreate2(where, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose,
             ErrorKind::kEnvironment, "write group " + name);
}

std::vector<Item> list_items(hid_t group) {
  std::vector<Item> items;
  const auto add = [](hid_t where, const char* name, const H5L_info_t* link, void* to) noexcept {
    ItemKind kind = ItemKind::kOther;
    H5O_info_t object{};
    if (link->type == H5L_TYPE_HARD) {
      if (H5Oget_info_by_name2(where, name, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0) return -1;
      if (object.type == H5O_TYPE_DATASET) kind = ItemKind::kDataset;
      if (object.type == H5O_TYPE_GROUP) kind = ItemKind::kGroup;
    }
    static_cast<std::vector<Item>*>(to)->push_back({name, kind});
    return 0;
  };
  check(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &items), ErrorKind::kUsage,
        "list the items of the file");
  return items;
}

Dataset open_dataset(hid_t where, const std::string& name) {
  const std::string action = "read data set " + name;
  Handle id = own(H5Dopen2(where, name.c_str(), H5P_DEFAULT), H5Dclose, ErrorKind::kUsage, action);
  Handle type = own(H5Dget_type(id), H5Tclose, ErrorKind::kUsage, action);
  const Handle space = own(H5Dget_space(id), H5Sclose, ErrorKind::kUsage, action);
  const Handle plan = own(H5Dget_create_plist(id), H5Pclose, ErrorKind::kUsage, action);
  require(H5Pget_layout(plan) != H5D_VIRTUAL && H5Pget_external_count(plan) == 0,
          fmt::format("data set {} is not stored in this file", name));
  require(H5Sget_simple_extent_type(space) != H5S_NULL, fmt::format("data set {} is empty", name));
  std::vector<hsize_t> dims(static_cast<std::size_t>(
      check(H5Sget_simple_extent_ndims(space), ErrorKind::kUsage, action)));
  check(H5Sget_simple_extent_dims(space, dims.data(), nullptr), ErrorKind::kUsage, action);
  std::int64_t size = 1;
  std::vector<std::int64_t> shape;
  for (const hsize_t extent : dims) {
    const auto limited = static_cast<std::int64_t>(std::min<hsize_t>(extent, kMaxElements + 1));
    shape.push_back(limited);
    const bool overflow = __builtin_mul_overflow(size, std::max<std::int64_t>(limited, 1), &size);
    require(!overflow && size <= kMaxElements,
            fmt::format("data set {} is too large; allowed: {} elements", name, kMaxElements));
  }
  return {std::move(id), std::move(type), std::move(shape)};
}

void read_dataset(const Dataset& dataset, hid_t memory_type, void* to) {
  check(H5Dread(dataset.id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, to), ErrorKind::kUsage,
        "read its elements");
}

Handle write_dataset(hid_t where, const std::string& name, hid_t type,
                     std::span<const std::int64_t> shape, const void* from) {
  const std::string action = "write data set " + name;
  const auto dims = extents(shape);
  const Handle space = own(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                           H5Sclose, ErrorKind::kEnvironment, action);
  const Handle plan = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, ErrorKind::kEnvironment, action);
  const std::size_t element_bytes = H5Tget_size(type);
  std::int64_t bytes = static_cast<std::int64_t>(element_bytes);
  for (const std::int64_t extent : shape) bytes *= extent;
  if (bytes >= kChunkedFromBytes && H5Tget_class(type) != H5T_STRING) {
    const auto chunk = chunk_of(shape, element_bytes);
    check(H5Pset_chunk(plan, static_cast<int>(chunk.size()), chunk.data()), ErrorKind::kEnvironment,
          action);
    check(H5Pset_shuffle(plan), ErrorKind::kEnvironment, action);
    check(H5Pset_deflate(plan, kDeflateLevel), ErrorKind::kEnvironment, action);
  }
  Handle dataset = own(H5Dcreate2(where, name.c_str(), type, space, H5P_DEFAULT, plan, H5P_DEFAULT),
                       H5Dclose, ErrorKind::kEnvironment, action);
  check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, from), ErrorKind::kEnvironment,
        action);
  return dataset;
}

Handle write_strings(hid_t where, const std::string& name, const std::vector<std::string>& values) {
  std::vector<const char*> chars;
  for (const std::string& value : values) chars.push_back(value.c_str());
  const auto count = static_cast<std::int64_t>(values.size());
  return write_dataset(where, name, string_type(H5T_VARIABLE), {&count, 1},
                       static_cast<const void*>(chars.data()));
}

void make_scale(hid_t dataset, const std::string& name) {
  check(H5DSset_scale(dataset, name.c_str()), ErrorKind::kEnvironment, "write axis " + name);
}

void attach_scale(hid_t dataset, hid_t scale, unsigned axis) {
  check(H5DSattach_scale(dataset, scale, axis), ErrorKind::kEnvironment, "attach an axis");
}

void label_axis(hid_t dataset, unsigned axis, const std::string& label) {
  check(H5DSset_label(dataset, axis, label.c_str()), ErrorKind::kEnvironment,
        "label axis " + label);
}

std::string library_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace sp::h5
