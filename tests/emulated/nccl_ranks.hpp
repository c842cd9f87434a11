// Ranks for tests of the emulator's NCCL: threads, rank r on device r, one communicator and one
// stream each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <nccl.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "harness/emulator/emulator.hpp"

namespace sp::test {

using Floats = std::vector<float>;

struct NcclRank {
  int rank, size;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;

  float* make(std::size_t count) const {  // not initialised
    void* address = nullptr;
    EXPECT_EQ(emulator::cudaMalloc(&address, count * sizeof(float)), cudaSuccess);
    return static_cast<float*>(address);
  }
  float* put(const Floats& values) const {
    float* address = make(values.size());
    EXPECT_EQ(
        cudaMemcpy(address, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice),
        cudaSuccess);
    return address;
  }
  // What is there when the stream has done its work.
  Floats take(const float* address, std::size_t count) const {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
    Floats values(count);
    EXPECT_EQ(cudaMemcpy(values.data(), address, count * sizeof(float), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }
  int next() const { return (rank + 1) % size; }
  int previous() const { return (rank + size - 1) % size; }
};

// Joins and runs the body on every rank; what the body leaves behind goes with the machine.
inline void on_nccl_ranks(int size, const std::function<void(const NcclRank&)>& body) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      NcclRank self{rank, size};
      cudaSetDevice(rank);
      EXPECT_EQ(ncclCommInitRank(&self.comm, size, id, rank), ncclSuccess);
      EXPECT_EQ(cudaStreamCreateWithFlags(&self.stream, cudaStreamNonBlocking), cudaSuccess);
      body(self);
    });
  }
}

// A new machine for every test.
class EmulatedNccl : public testing::Test {
 protected:
  void SetUp() override { emulator::configure({}); }
  void TearDown() override {
    const emulator::FaultReport left = emulator::take_fault();
    EXPECT_FALSE(left.found) << left.what;
    emulator::configure({});
  }
  // The first fault, which must be of this kind and whose story must contain the words.
  static void expect_fault(emulator::FaultKind kind, const std::vector<std::string>& words) {
    const emulator::FaultReport report = emulator::take_fault();
    ASSERT_TRUE(report.found);
    EXPECT_EQ(report.kind, kind) << report.what;
    for (const std::string& word : words) {
      EXPECT_NE(report.what.find(word), std::string::npos) << word << " not in: " << report.what;
    }
  }
};

}  // namespace sp::test
