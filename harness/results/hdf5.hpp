// RAII over the part of the serial HDF5 C API that our files use.
//
// Reading functions throw Error(kUsage): what they meet is the content of somebody's file. Writing
// functions throw Error(kEnvironment): what stops them is the disk. HDF5 itself prints nothing; its
// error stack becomes the end of a one-line message. The library is not thread-safe: one thread at
// a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "reference/problem/error.hpp"

namespace sp::h5 {

// Owns one HDF5 identifier; converts to it, so that the C functions take a Handle.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }  // NOLINT(google-explicit-constructor)
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_;
  Close close_;
};

// What `action` did, as HDF5 reports it: a negative status throws, any other passes through.
[[noreturn]] void fail(ErrorKind kind, const std::string& action);
template <class Status>
Status check(Status status, ErrorKind kind, const std::string& action) {
  if (status < 0) fail(kind, action);
  return status;
}
inline Handle own(hid_t id, Handle::Close close, ErrorKind kind, const std::string& action) {
  return {check(id, kind, action), close};
}
Handle string_type(std::size_t bytes);  // UTF-8; H5T_VARIABLE for any length

Handle open_file(const std::string& path);  // read-only
// A new file in memory, and its bytes when it is complete. A file is not written in place because
// HDF5 1.10 crashes when the disk is full; write_file_atomically() reports it.
Handle create_image();
std::vector<std::byte> take_image(Handle file);
Handle open_group(hid_t where, const std::string& name);
Handle create_group(hid_t where, const std::string& name);

enum class ItemKind { kDataset, kGroup, kOther };  // kOther: links out of the file, named types
struct Item {
  std::string name;
  ItemKind kind;
};
std::vector<Item> list_items(hid_t group);

struct Dataset {
  Handle id;
  Handle type;  // as stored
  std::vector<std::int64_t> shape;
};
// Refuses data that are not stored in this very file, and more elements than 2^42.
Dataset open_dataset(hid_t where, const std::string& name);
void read_dataset(const Dataset& dataset, hid_t memory_type, void* to);
// Row-major, in the type it has in memory; shuffled and deflated in chunks when it is large.
Handle write_dataset(hid_t where, const std::string& name, hid_t type,
                     std::span<const std::int64_t> shape, const void* from);
Handle write_strings(hid_t where, const std::string& name, const std::vector<std::string>& values);

// Dimension scales: `scale` becomes the coordinate of dimension `axis` of `dataset`.
void make_scale(hid_t dataset, const std::string& name);
void attach_scale(hid_t dataset, hid_t scale, unsigned axis);
void label_axis(hid_t dataset, unsigned axis, const std::string& label);

std::string library_version();

}  // namespace sp::h5
