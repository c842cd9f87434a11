# Precompiled headers: what the sources include most, parsed once instead of in every file. Three sets, each compiled
# once per tree: `base`, `json` (base and nlohmann), `tests` (base and GoogleTest).
#
# Every file still includes what it uses: the thread sanitizer's tree and the header checks compile without them.
# SPDX-License-Identifier: Apache-2.0
set(SP_PRECOMPILED_BASE <algorithm> <array> <chrono> <cmath> <cstdint> <cstring> <functional> <limits> <map> <memory> <mutex> <numeric>
         <optional> <span> <string> <string_view> <utility> <vector> <fmt/format.h>)

# sp_precompiled_set(name LIBRARIES l... HEADERS h...)
function(sp_precompiled_set name)
  cmake_parse_arguments(ARG "" "" "LIBRARIES;HEADERS" ${ARGN})
  set(source ${PROJECT_BINARY_DIR}/precompiled_${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "// Nothing but its precompiled headers.\n")
  add_library(sp_precompiled_${name} OBJECT EXCLUDE_FROM_ALL ${source})
  target_link_libraries(sp_precompiled_${name} PRIVATE sp_options fmt::fmt ${ARG_LIBRARIES})
  target_precompile_headers(sp_precompiled_${name} PRIVATE ${ARG_HEADERS})
endfunction()
sp_precompiled_set(base HEADERS ${SP_PRECOMPILED_BASE})
sp_precompiled_set(json LIBRARIES nlohmann_json::nlohmann_json HEADERS ${SP_PRECOMPILED_BASE} <nlohmann/json.hpp>)

# sp_precompiled(set target...)
function(sp_precompiled set)
  foreach(target ${ARGN})
    target_precompile_headers(${target} REUSE_FROM sp_precompiled_${set})
  endforeach()
endfunction()

# sp_plain(target...): nothing there takes long, so it is compiled fast rather than made fast.
function(sp_plain)
  foreach(target ${ARGN})
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
  endforeach()
endfunction()
