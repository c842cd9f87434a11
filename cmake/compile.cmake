# How fast targets are compiled, and how fast what comes out is.
#
# sp_compiled_as(KIND target...)
#   fast   fully optimised, in sanitized builds nearly: kernels, the emulator, everything that runs for long
#   plain  hardly optimised: nothing there takes long
#   test   the same, with GoogleTest
#   json   the same, with the JSON library; not optimised at all in sanitized builds, which halves their compilation, but
#          would slow the oracles of tests down
# Every kind has its precompiled header: what its sources include most, parsed once instead of in every file. The thread
# sanitizer's tree and the header checks do without, so that every file still includes what it uses.
# SPDX-License-Identifier: Apache-2.0
set(headers <algorithm> <array> <chrono> <cmath> <cstdint> <cstring> <functional> <limits> <map> <memory> <mutex> <numeric>
            <optional> <span> <string> <string_view> <utility> <vector> <fmt/format.h>)
set(sp_headers_fast ${headers})
set(sp_headers_plain ${headers})
set(sp_headers_json ${headers} <nlohmann/json.hpp>)
set(sp_headers_test ${headers} <gtest/gtest.h>)
set(sp_libraries_json nlohmann_json::nlohmann_json)
set(sp_libraries_test GTest::gtest)

function(sp_compiled_as kind)
  set(speed)
  if(NOT kind STREQUAL fast)
    set(speed $<$<CONFIG:Release>:-O1>)
  endif()
  if(kind STREQUAL fast)
    set(speed $<$<CONFIG:Debug>:-O2>)
  endif()
  if(kind STREQUAL json)
    list(APPEND speed $<$<CONFIG:Debug>:-O0>)
  endif()
  if(NOT TARGET sp_compiled_${kind})
    set(source ${PROJECT_BINARY_DIR}/precompiled_${kind}.cpp)
    file(CONFIGURE OUTPUT ${source} CONTENT "// Nothing but its precompiled header.\n")
    add_library(sp_compiled_${kind} OBJECT EXCLUDE_FROM_ALL ${source})
    target_link_libraries(sp_compiled_${kind} PRIVATE sp_options fmt::fmt ${sp_libraries_${kind}})
    target_precompile_headers(sp_compiled_${kind} PRIVATE ${sp_headers_${kind}})
    target_compile_options(sp_compiled_${kind} PRIVATE ${speed})
  endif()
  foreach(target ${ARGN})
    target_precompile_headers(${target} REUSE_FROM sp_compiled_${kind})
    target_compile_options(${target} PRIVATE ${speed})
  endforeach()
endfunction()
