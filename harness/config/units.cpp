// SPDX-License-Identifier: Apache-2.0
#include "harness/config/units.hpp"

namespace sp {

const std::map<std::string, double>& units_of(Dimension dimension) {
  static const std::map<Dimension, std::map<std::string, double>> all{
      {Dimension::kBytes,
       {{"B", 1},
        {"kB", 1e3},
        {"MB", 1e6},
        {"GB", 1e9},
        {"TB", 1e12},
        {"KiB", 0x1p10},
        {"MiB", 0x1p20},
        {"GiB", 0x1p30}}},
      {Dimension::kBandwidth,
       {{"B/s", 1},
        {"MB/s", 1e6},
        {"GB/s", 1e9},
        {"TB/s", 1e12},
        {"MiB/s", 0x1p20},
        {"GiB/s", 0x1p30},
        {"Gbit/s", 1e9 / 8}}},
      {Dimension::kSeconds, {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}}},
      {Dimension::kFlopRate, {{"GFLOP/s", 1e9}, {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}}},
      {Dimension::kPure, {{"1", 1}}}};
  return all.at(dimension);
}

const char* base_unit(Dimension dimension) {
  switch (dimension) {
    case Dimension::kBytes:
      return " B";
    case Dimension::kBandwidth:
      return " B/s";
    case Dimension::kSeconds:
      return " s";
    case Dimension::kFlopRate:
      return " FLOP/s";
    case Dimension::kPure:
      return "";
  }
  return "";
}

}  // namespace sp
