// One call of one rank: what it reads and writes, whether it is legal alone and beside another.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "harness/emulator/include/nccl.h"
#include "harness/emulator/machine.hpp"

namespace sp::emulator {

enum class NcclKind : std::uint8_t {
  kSend,
  kReceive,
  kAllGather,
  kReduceScatter,
  kAllReduce,
  kReduce,
  kBroadcast
};

struct NcclCall {
  NcclKind kind = NcclKind::kSend;
  const void* from = nullptr;
  void* to = nullptr;
  std::size_t count = 0;
  ncclDataType_t type = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  int peer = 0;  // or root

  bool pairwise() const { return kind == NcclKind::kSend || kind == NcclKind::kReceive; }
  bool reduces() const;
  std::string describe() const;  // ncclSend of 512 f32 to rank 3
};

std::size_t size_of(ncclDataType_t type);

// Bytes on the device.
struct NcclRegion {
  const std::byte* begin = nullptr;
  std::size_t bytes = 0;
  bool overlaps(const NcclRegion& other) const {
    return begin < other.begin + other.bytes && other.begin < begin + bytes;
  }
};
NcclRegion read_by(const NcclCall& call, int rank, int size);
NcclRegion written_by(const NcclCall& call, int rank, int size);

// Throw Fault: arguments outside the documentation's; calls of one group that touch what another
// writes, but for the documented in-place positions.
void check_arguments(const NcclCall& call, int size);
void check_overlaps(const std::vector<NcclCall>& calls, int rank, int size);
// What differs between the calls of two ranks that meet, e.g. "the counts"; null: nothing.
const char* difference(const NcclCall& a, const NcclCall& b);

// sum = the reduction of equally long arrays of elements, in an order drawn from the seed. Rounds
// after every step, as GPUs do.
std::vector<std::byte> reduce_in_any_order(const std::vector<const std::vector<std::byte>*>& arrays,
                                           ncclDataType_t type, ncclRedOp_t op, std::uint64_t seed);

}  // namespace sp::emulator
