// SPDX-License-Identifier: Apache-2.0
#include "harness/results/environment.hpp"

#include <dlfcn.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <hwy/highway.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/results/build_record.hpp"
#include "harness/results/hdf5_attributes.hpp"

namespace sp {
namespace {

const std::string kUnknown = "unknown";

// The value of the first line "key<separator>value", as in /proc/cpuinfo and /etc/os-release.
std::string value_in(const char* path, std::string_view key, char separator) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t at = line.find(separator);
    if (at == std::string::npos) continue;
    std::string value = line.substr(at + 1);
    std::erase(value, '"');
    return value.substr(std::min(value.find_first_not_of(' '), value.size()));
  }
  return kUnknown;
}

std::string cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  const long usable = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : online;
  return fmt::format("{} usable of {}", usable, online);
}

std::string memory() {
  const double bytes =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  return fmt::format("{:.1f} GiB", bytes / 0x1p30);
}

std::string operating_system() {
  utsname system{};
  const std::string kernel = ::uname(&system) == 0 ? system.release : kUnknown;
  return fmt::format("{}, Linux {}", value_in("/etc/os-release", "PRETTY_NAME", '='), kernel);
}

// Asked of the library that is really loaded, and only where the program has one: linking MPI here
// would load it into every program.
std::string mpi_version() {
  using Query = int (*)(char*, int*);
  const auto query = reinterpret_cast<Query>(::dlsym(RTLD_DEFAULT, "MPI_Get_library_version"));
  if (query == nullptr) return "none";
  std::array<char, 8192> text{};  // MPI_MAX_LIBRARY_VERSION_STRING of every implementation fits
  int length = 0;
  if (query(text.data(), &length) != 0) return kUnknown;
  const std::string full(text.data());
  return full.substr(0, full.find_first_of(",\n"));  // the rest is build details
}

std::string highway_version() {
  return fmt::format("{}.{}.{} ({})", HWY_MAJOR, HWY_MINOR, HWY_PATCH,
                     hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()));
}

std::string fmt_version() {
  return fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100);
}

std::string utc_now() {
  const auto now =
      std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)));
}

}  // namespace

const std::string& Environment::at(std::string_view name) const {
  for (const auto& [key, value] : entries) {
    if (key == name) return value;
  }
  return kUnknown;
}

Environment capture_environment() {
  return {{
      {"created_utc", utc_now()},
      {"software_version", build_record::kVersion},
      {"commit", build_record::kCommit},
      {"commit_dirty", build_record::kDirty},
      {"compiler", build_record::kCompiler},
      {"flags", build_record::kFlags},
      {"build_type", build_record::kBuildType},
      {"sanitizers", build_record::kSanitizers},
      {"cpu", value_in("/proc/cpuinfo", "model name", ':')},
      {"cores", cores()},
      {"memory", memory()},
      {"os", operating_system()},
      {"hdf5", h5::library_version()},
      {"highway", highway_version()},
      {"fmt", fmt_version()},
      {"mpi", mpi_version()},
  }};
}

std::string to_text(const Environment& environment) {
  std::size_t width = 0;
  for (const auto& [name, value] : environment.entries) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : environment.entries) {
    text += fmt::format("{:<{}}  {}\n", name, width, value);
  }
  return text;
}

std::string to_json(const Environment& environment) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, value] : environment.entries) object[name] = value;
  return object.dump(2) + "\n";
}

void write_environment(hid_t file, const Environment& environment) {
  const h5::Handle group = h5::create_group(file, "environment");
  for (const auto& [name, value] : environment.entries) h5::write_attribute(group, name, value);
}

}  // namespace sp
