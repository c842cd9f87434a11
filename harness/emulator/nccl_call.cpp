// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/nccl_call.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <type_traits>

#include "harness/emulator/include/cuda_bf16.h"
#include "harness/emulator/include/cuda_fp16.h"

namespace sp::emulator {
namespace {

struct TypeInfo {
  ncclDataType_t type;
  const char* name;
  std::size_t size;
};
constexpr TypeInfo kTypes[] = {{ncclInt8, "i8", 1},     {ncclUint8, "u8", 1},
                               {ncclInt32, "i32", 4},   {ncclInt64, "i64", 8},
                               {ncclFloat16, "f16", 2}, {ncclFloat32, "f32", 4},
                               {ncclFloat64, "f64", 8}, {ncclBfloat16, "bf16", 2}};

const TypeInfo* find(ncclDataType_t type) {
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const TypeInfo& info) { return info.type == type; });
  return found == std::end(kTypes) ? nullptr : found;
}

const char* name_of(ncclRedOp_t op) {
  constexpr const char* kNames[] = {"sum", "product", "maximum", "minimum"};
  return kNames[static_cast<std::size_t>(op)];
}

const char* name_of(NcclKind kind) {
  constexpr const char* kNames[] = {"ncclSend",          "ncclRecv",      "ncclAllGather",
                                    "ncclReduceScatter", "ncclAllReduce", "ncclReduce",
                                    "ncclBroadcast"};
  return kNames[static_cast<std::size_t>(kind)];
}

bool has_root(NcclKind kind) { return kind == NcclKind::kReduce || kind == NcclKind::kBroadcast; }

NcclRegion region(const void* begin, std::size_t elements, ncclDataType_t type) {
  return {static_cast<const std::byte*>(begin), elements * size_of(type)};
}

bool in_place(const NcclCall& call, int rank) {
  const auto* from = static_cast<const std::byte*>(call.from);
  const auto* to = static_cast<const std::byte*>(call.to);
  const std::size_t mine = static_cast<std::size_t>(rank) * call.count * size_of(call.type);
  switch (call.kind) {
    case NcclKind::kAllGather:
      return from == to + mine;
    case NcclKind::kReduceScatter:
      return to == from + mine;
    case NcclKind::kAllReduce:
    case NcclKind::kReduce:
    case NcclKind::kBroadcast:
      return from == to;
    default:
      return false;
  }
}

template <class T>
T widen(T x) {
  return x;
}
float widen(__half x) { return __half2float(x); }
float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T, class X>
T narrow(X x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

template <class T>
void accumulate(std::byte* into, const std::byte* from, std::size_t count, ncclRedOp_t op) {
  for (std::size_t i = 0; i < count; ++i) {
    T a, b;
    std::memcpy(&a, into + i * sizeof(T), sizeof(T));
    std::memcpy(&b, from + i * sizeof(T), sizeof(T));
    const auto x = widen(a), y = widen(b);
    const auto z = op == ncclSum    ? x + y
                   : op == ncclProd ? x * y
                   : op == ncclMax  ? std::max(x, y)
                                    : std::min(x, y);
    a = narrow<T>(z);
    std::memcpy(into + i * sizeof(T), &a, sizeof(T));
  }
}

}  // namespace

bool NcclCall::reduces() const {
  return kind == NcclKind::kReduceScatter || kind == NcclKind::kAllReduce ||
         kind == NcclKind::kReduce;
}

std::string NcclCall::describe() const {
  const TypeInfo* info = find(type);
  std::string words = fmt::format("{} of {} {}", name_of(kind), count, info ? info->name : "?");
  if (reduces()) words += fmt::format(" ({})", name_of(op));
  if (kind == NcclKind::kSend) words += fmt::format(" to rank {}", peer);
  if (kind == NcclKind::kReceive) words += fmt::format(" from rank {}", peer);
  if (has_root(kind)) words += fmt::format(" with root {}", peer);
  return words;
}

std::size_t size_of(ncclDataType_t type) {
  const TypeInfo* info = find(type);
  return info == nullptr ? 0 : info->size;
}

NcclRegion read_by(const NcclCall& call, int rank, int size) {
  const auto ranks = static_cast<std::size_t>(size);
  switch (call.kind) {
    case NcclKind::kReceive:
      return {};
    case NcclKind::kReduceScatter:
      return region(call.from, call.count * ranks, call.type);
    case NcclKind::kBroadcast:
      return rank == call.peer ? region(call.from, call.count, call.type) : NcclRegion{};
    default:
      return region(call.from, call.count, call.type);
  }
}

NcclRegion written_by(const NcclCall& call, int rank, int size) {
  const auto ranks = static_cast<std::size_t>(size);
  switch (call.kind) {
    case NcclKind::kSend:
      return {};
    case NcclKind::kAllGather:
      return region(call.to, call.count * ranks, call.type);
    case NcclKind::kReduce:
      return rank == call.peer ? region(call.to, call.count, call.type) : NcclRegion{};
    default:
      return region(call.to, call.count, call.type);
  }
}

void check_arguments(const NcclCall& call, int size) {
  if (find(call.type) == nullptr) {
    throw Fault(FaultKind::kApi, fmt::format("{}: data type {} is none of the emulator's",
                                             name_of(call.kind), static_cast<int>(call.type)));
  }
  const bool summable = call.type != ncclInt8 && call.type != ncclUint8;
  if (call.reduces() && !summable) {
    throw Fault(FaultKind::kApi, call.describe() + ": bytes are moved, not reduced");
  }
  if (call.reduces() && (call.op < ncclSum || call.op > ncclMin)) {
    throw Fault(FaultKind::kApi, fmt::format("{}: reduction {} is none of the emulator's",
                                             name_of(call.kind), static_cast<int>(call.op)));
  }
  if ((call.pairwise() || has_root(call.kind)) && (call.peer < 0 || call.peer >= size)) {
    throw Fault(FaultKind::kApi,
                fmt::format("{}: there are ranks 0 to {}", call.describe(), size - 1));
  }
}

void check_overlaps(const std::vector<NcclCall>& calls, int rank, int size) {
  for (std::size_t w = 0; w < calls.size(); ++w) {
    const NcclRegion written = written_by(calls[w], rank, size);
    if (written.bytes == 0) continue;
    for (std::size_t other = 0; other < calls.size(); ++other) {
      const bool reads = read_by(calls[other], rank, size).overlaps(written) &&
                         !(other == w && in_place(calls[w], rank));
      const bool writes = other != w && written_by(calls[other], rank, size).overlaps(written);
      if (!reads && !writes) continue;
      const std::string culprit =
          other == w ? "its own source, not at the documented in-place position"
                     : "the buffer of " + calls[other].describe() + " in the same group";
      throw Fault(FaultKind::kApi,
                  fmt::format("rank {}: {} writes into {}", rank, calls[w].describe(), culprit));
    }
  }
}

const char* difference(const NcclCall& a, const NcclCall& b) {
  if (!a.pairwise() && a.kind != b.kind) return "the operations";
  if (a.count != b.count) return "the counts";
  if (a.type != b.type) return "the data types";
  if (a.reduces() && a.op != b.op) return "the reductions";
  if (has_root(a.kind) && a.peer != b.peer) return "the roots";
  return nullptr;
}

std::vector<std::byte> reduce_in_any_order(const std::vector<const std::vector<std::byte>*>& arrays,
                                           ncclDataType_t type, ncclRedOp_t op,
                                           std::uint64_t seed) {
  std::vector<std::size_t> order(arrays.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  std::vector<std::byte> sum = *arrays[order.front()];
  const std::size_t count = sum.size() / size_of(type);
  for (std::size_t i = 1; i < order.size(); ++i) {
    const std::byte* from = arrays[order[i]]->data();
    switch (type) {
      case ncclInt32:
        accumulate<std::int32_t>(sum.data(), from, count, op);
        break;
      case ncclInt64:
        accumulate<std::int64_t>(sum.data(), from, count, op);
        break;
      case ncclFloat16:
        accumulate<__half>(sum.data(), from, count, op);
        break;
      case ncclFloat32:
        accumulate<float>(sum.data(), from, count, op);
        break;
      case ncclFloat64:
        accumulate<double>(sum.data(), from, count, op);
        break;
      default:
        accumulate<__nv_bfloat16>(sum.data(), from, count, op);
    }
  }
  return sum;
}

}  // namespace sp::emulator
