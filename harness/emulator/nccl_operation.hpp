// The operation of a stream that a group of NCCL calls is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/emulator/nccl_world.hpp"

namespace sp::emulator {

class NcclWorld::Operation final : public StreamOperation {
 public:
  Operation(std::shared_ptr<NcclWorld> world, int rank) : world_(std::move(world)), rank_(rank) {}
  ~Operation() override;

  void add(std::shared_ptr<Meeting> meeting, std::size_t place) {
    parts_.push_back({std::move(meeting), place});
  }

  bool advance(const Accessor& who) override;
  std::string describe() const override;

  // Under the world's lock.
  bool reached() const { return reached_; }
  // The ranks that have not reached what this one has, and its calls that wait for them.
  std::vector<std::pair<int, const NcclCall*>> waits_for() const;

 private:
  struct Part {
    std::shared_ptr<Meeting> meeting;
    std::size_t place = 0;
    bool given = false, done = false;
    Place& mine() const { return meeting->places[place]; }
  };

  bool advance_parts(const Accessor& who, bool& moved);
  void reach();
  void give(Part& part, const Accessor& who);
  void take(Part& part, const Accessor& who);
  const std::vector<std::byte>& reduced(Meeting& meeting, const NcclCall& call);

  std::shared_ptr<NcclWorld> world_;
  int rank_;
  std::vector<Part> parts_;
  bool reached_ = false, finished_ = false;
};

}  // namespace sp::emulator
