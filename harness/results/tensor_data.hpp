// Tensors as HDF5 data sets, in every encoding that NumPy users have.
//
// f64 and f32 as they are; f16 as IEEE half, or uint16 with encoding = "float16"; bf16 as uint16
// with encoding = "bfloat16", because HDF5 has no such type. Either byte order is read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/results/hdf5.hpp"
#include "reference/problem/host_tensor.hpp"

namespace sp {

using Axes = std::vector<std::string>;  // one letter per dimension, as in reference/README.md
using AxesChoice = std::vector<Axes>;   // what a data set may have; their lengths differ

// `file_bytes` bounds what the data set can hold: a header that promises more is refused before
// memory is allocated for it.
HostTensor read_tensor(hid_t file, const std::string& name, const AxesChoice& axes,
                       std::int64_t file_bytes);
// Integers of any width whose values fit.
HostTensor read_int32_tensor(hid_t file, const std::string& name, const Axes& axes,
                             std::int64_t file_bytes);
// The dimensions are labelled with the axes.
void write_tensor(hid_t file, const std::string& name, const AxesChoice& axes,
                  const HostTensor& tensor);

}  // namespace sp
