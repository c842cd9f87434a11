// SPDX-License-Identifier: Apache-2.0
#include "tests/support/hdf5_edits.hpp"

#include <cstdint>

#include "reference/problem/error.hpp"

namespace sp::test {
namespace {

hid_t space_of(const Dims& dims) {
  return dims.empty() ? H5Screate(H5S_SCALAR)
                      : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
}

void must(herr_t status) { SP_CHECK(status >= 0, "a test cannot edit its file"); }

}  // namespace

void edit(const std::string& path, const std::function<void(hid_t)>& change) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  SP_CHECK(file >= 0, "cannot open " + path);
  change(file);
  must(H5Fclose(file));
}

void create(const std::string& path, const std::function<void(hid_t)>& fill) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  SP_CHECK(file >= 0, "cannot create " + path);
  fill(file);
  must(H5Fclose(file));
}

void put_attribute(hid_t object, const char* name, hid_t type, const void* data, const Dims& dims) {
  if (H5Aexists(object, name) > 0) must(H5Adelete(object, name));
  const hid_t space = space_of(dims);
  const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  SP_CHECK(attribute >= 0, "a test cannot create an attribute");
  must(H5Awrite(attribute, type, data));
  must(H5Aclose(attribute));
  must(H5Sclose(space));
}

void put_fixed_string(hid_t object, const char* name, const std::string& text, H5T_str_t padding,
                      H5T_cset_t set) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  must(H5Tset_size(type, text.size()));
  must(H5Tset_strpad(type, padding));
  must(H5Tset_cset(type, set));
  put_attribute(object, name, type, text.data());
  must(H5Tclose(type));
}

void put_dataset(hid_t file, const char* name, hid_t type, const Dims& dims, const void* data) {
  if (H5Lexists(file, name, H5P_DEFAULT) > 0) remove_item(file, name);
  const hid_t space = space_of(dims);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  SP_CHECK(dataset >= 0, "a test cannot create a data set");
  if (data != nullptr) must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
  must(H5Dclose(dataset));
  must(H5Sclose(space));
}

void remove_item(hid_t file, const char* name) { must(H5Ldelete(file, name, H5P_DEFAULT)); }

hid_t numpy_bool() {
  const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
  std::int8_t value = 0;
  must(H5Tenum_insert(type, "FALSE", &value));
  value = 1;
  must(H5Tenum_insert(type, "TRUE", &value));
  return type;
}

hid_t ieee_half(bool big_endian) {
  const hid_t type = H5Tcopy(big_endian ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
  must(H5Tset_fields(type, 15, 10, 5, 0, 10));
  must(H5Tset_size(type, 2));
  must(H5Tset_ebias(type, 15));
  return type;
}

}  // namespace sp::test
