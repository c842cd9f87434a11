// What the runtime itself puts on streams: allocations, frees, copies, fills, event records.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "harness/emulator/memory.hpp"

namespace sp::emulator {

class RecordOperation final : public StreamOperation {
 public:
  explicit RecordOperation(std::shared_ptr<double> milliseconds)
      : milliseconds_(std::move(milliseconds)) {}
  bool advance(const Accessor&) override;
  std::string describe() const override { return "event record"; }

 private:
  std::shared_ptr<double> milliseconds_;
};

// In the place of an operation that ran ahead of its stream.
class NothingLeft final : public StreamOperation {
 public:
  bool advance(const Accessor&) override { return true; }
  std::string describe() const override { return "nothing"; }
};

// An allocation or a free: what becomes of the block, also if the stream is given up.
class BlockOperation : public StreamOperation {
 public:
  BlockOperation(DeviceMemory& memory, std::byte* address, std::size_t bytes)
      : memory_(memory), address_(address), bytes_(bytes) {}
  virtual void settle(std::uint32_t number) = 0;

 protected:
  DeviceMemory& memory_;
  std::byte* address_;
  std::size_t bytes_;
};

class AllocateOperation final : public BlockOperation {
 public:
  using BlockOperation::BlockOperation;
  bool advance(const Accessor& who) override;
  void settle(std::uint32_t number) override { memory_.open(address_, bytes_, number); }
  std::string describe() const override;
};

class FreeOperation final : public BlockOperation {
 public:
  using BlockOperation::BlockOperation;
  bool advance(const Accessor& who) override;
  void settle(std::uint32_t number) override { memory_.close(address_, bytes_, number); }
  std::string describe() const override;
};

// One side or both on the device. Pageable bytes of the host are taken at the call. `there` is what
// the copy is on another device, if one side lies there.
class CopyOperation final : public StreamOperation {
 public:
  CopyOperation(std::byte* to, const std::byte* from, std::size_t bytes, bool from_pageable,
                Accessor there = {0, 0, -1});
  bool advance(const Accessor& who) override;
  std::string describe() const override;

 private:
  std::byte* to_;
  const std::byte* from_;
  std::size_t bytes_;
  std::vector<std::byte> taken_;
  Accessor there_;
};

class FillOperation final : public StreamOperation {
 public:
  FillOperation(std::byte* address, int value, std::size_t bytes)
      : address_(address), value_(value), bytes_(bytes) {}
  bool advance(const Accessor& who) override;
  std::string describe() const override;

 private:
  std::byte* address_;
  int value_;
  std::size_t bytes_;
};

}  // namespace sp::emulator
