# The CUDA and NCCL half. SP_HAVE_CUDA tells whether it is built, SP_CUDA_ABSENCE in one sentence why not and what would.
#
# SP_ENABLE_CUDA  AUTO  if a GPU is present, for its architecture
#                 ON    for all architectures that are supported, with or without a GPU: most of a build's time
#                 OFF
# SPDX-License-Identifier: Apache-2.0
set(SP_HAVE_CUDA OFF)
set(SP_CUDA_ABSENCE "")
set(by_hand "./seqpar --with-cuda list builds it")

if(SP_ENABLE_CUDA STREQUAL OFF)
  set(SP_CUDA_ABSENCE "this tree was configured without it: ${by_hand}")
  return()
endif()

find_program(SP_NVCC nvcc PATHS /usr/local/cuda/bin)
if(NOT SP_NVCC)
  set(SP_CUDA_ABSENCE "no CUDA toolkit (nvcc) was found: install one (12.8 or newer) and NCCL, then ${by_hand}")
else()
  get_filename_component(toolkit ${SP_NVCC} DIRECTORY)
  execute_process(COMMAND ${SP_NVCC} --version OUTPUT_VARIABLE version ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" version "${version}")
  set(version ${CMAKE_MATCH_1})
  find_path(SP_NCCL_INCLUDE nccl.h HINTS ${toolkit}/../include)
  find_library(SP_NCCL_LIBRARY nccl HINTS ${toolkit}/../lib64)
  # C++20 came with 12.0, sm_100 with 12.8.
  if(NOT version VERSION_GREATER_EQUAL 12.8)
    set(SP_CUDA_ABSENCE "the CUDA toolkit is version '${version}', needed is 12.8 or newer, then ${by_hand}")
  elseif(NOT SP_NCCL_INCLUDE OR NOT SP_NCCL_LIBRARY)
    set(SP_CUDA_ABSENCE "the CUDA toolkit has no NCCL (nccl.h and libnccl): install it, then ${by_hand}")
  endif()
endif()
if(SP_CUDA_ABSENCE AND SP_ENABLE_CUDA STREQUAL ON)
  message(FATAL_ERROR "SP_ENABLE_CUDA=ON, but ${SP_CUDA_ABSENCE}")
endif()

if(NOT SP_CUDA_ABSENCE AND SP_ENABLE_CUDA STREQUAL AUTO)
  # "8.0" of every GPU; nothing where there is no driver or no GPU.
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE capabilities
                  RESULT_VARIABLE failed ERROR_QUIET)
  string(REGEX MATCHALL "[0-9]+\\.[0-9]+" capabilities "${capabilities}")
  list(REMOVE_DUPLICATES capabilities)
  list(FILTER capabilities EXCLUDE REGEX "^[0-7]\\.")
  if(failed OR NOT capabilities)
    set(SP_CUDA_ABSENCE "no GPU of compute capability 8.0 or newer was found: ${by_hand} all the same")
  else()
    string(REPLACE "." "" architectures "${capabilities}")
    list(TRANSFORM architectures APPEND -real)
  endif()
endif()
if(SP_CUDA_ABSENCE)
  message(STATUS "no back-end cuda: ${SP_CUDA_ABSENCE}")
  return()
endif()

if(NOT architectures)
  # Each from its own PTX: that of sm_80 assembled for sm_90 lacks conversions and spills registers.
  set(architectures 80-real 90-real 100)
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${architectures})
endif()
if(NOT DEFINED CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${SP_NVCC})
endif()
# What ptxas says of registers and spills is kept beside every object, for the test that reads it.
set(CMAKE_CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/keep_ptxas_log.sh ${SP_CCACHE_COMMAND})
enable_language(CUDA)
# Targets name CUDA::cudart themselves; what CMake would add is not where the C++ linker looks.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
# Packages that name the system's folder must not have it moved to the front.
list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
# CMake 3.25 knows no C++20 of nvcc yet.
string(APPEND CMAKE_CUDA_FLAGS " -std=c++20")
find_package(CUDAToolkit REQUIRED)
set(SP_HAVE_CUDA ON)
