// Edits of HDF5 files with the C API itself: what other programs might have written.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <hdf5.h>

#include <functional>
#include <string>
#include <vector>

namespace sp::test {

void edit(const std::string& path, const std::function<void(hid_t)>& change);  // an existing file
void create(const std::string& path, const std::function<void(hid_t)>& fill);

// An attribute or data set of the given type; without data it holds zeros. Replaces what is there.
using Dims = std::vector<hsize_t>;
void put_attribute(hid_t object, const char* name, hid_t type, const void* data,
                   const Dims& dims = {});
void put_fixed_string(hid_t object, const char* name, const std::string& text, H5T_str_t padding,
                      H5T_cset_t set);
void put_dataset(hid_t file, const char* name, hid_t type, const Dims& dims,
                 const void* data = nullptr);
void remove_item(hid_t file, const char* name);

hid_t numpy_bool();                // the enumeration that h5py makes of numpy.bool_; to be closed
hid_t ieee_half(bool big_endian);  // the type that h5py makes of numpy.float16; to be closed

}  // namespace sp::test
