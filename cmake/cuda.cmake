# The CUDA and NCCL half: SP_HAVE_CUDA tells whether it is built. Architectures by name, because the machine that
# compiles need not have a GPU.
# SPDX-License-Identifier: Apache-2.0
set(SP_HAVE_CUDA OFF)
if(SP_ENABLE_CUDA STREQUAL OFF)
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
endif()
find_program(SP_NVCC nvcc PATHS /usr/local/cuda/bin)
set(missing)
if(SP_NVCC)
  if(NOT DEFINED CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${SP_NVCC})
  endif()
  get_filename_component(toolkit ${SP_NVCC} DIRECTORY)
  find_path(SP_NCCL_INCLUDE nccl.h HINTS ${toolkit}/../include)
  find_library(SP_NCCL_LIBRARY nccl HINTS ${toolkit}/../lib64)
  if(NOT SP_NCCL_INCLUDE OR NOT SP_NCCL_LIBRARY)
    set(missing "NCCL (nccl.h and libnccl)")
  endif()
else()
  set(missing "a CUDA toolkit (nvcc)")
endif()
if(missing)
  if(SP_ENABLE_CUDA STREQUAL ON)
    message(FATAL_ERROR "SP_ENABLE_CUDA=ON but ${missing} was not found")
  endif()
  message(STATUS "no ${missing}: the cuda back-end is left out, the emulated one runs the same sources")
  return()
endif()

# What ptxas says of registers and spills is kept beside every object, for the test that reads it.
set(CMAKE_CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/keep_ptxas_log.sh ${SP_CCACHE})
enable_language(CUDA)
# Targets name CUDA::cudart themselves; what CMake would add is not where the C++ linker looks.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
# Packages that name the system's folder must not have it moved to the front.
list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
# CMake 3.25 knows no C++20 of nvcc yet.
string(APPEND CMAKE_CUDA_FLAGS " -std=c++20")
find_package(CUDAToolkit REQUIRED)
set(SP_HAVE_CUDA ON)
