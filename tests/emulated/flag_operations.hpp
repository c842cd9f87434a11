// Operations that wait for a flag, and one that raises it: what a device does while others decide.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "harness/emulator/machine.hpp"

namespace sp::emulated {

// Ends when the flag is up.
class Waits final : public emulator::StreamOperation {
 public:
  Waits(std::atomic<bool>& flag, std::string name) : flag_(flag), name_(std::move(name)) {}
  bool advance(const emulator::Accessor&) override { return flag_; }
  std::string describe() const override { return name_; }

 private:
  std::atomic<bool>& flag_;
  std::string name_;
};

class Raises final : public emulator::StreamOperation {
 public:
  explicit Raises(std::atomic<bool>& flag) : flag_(flag) {}
  bool advance(const emulator::Accessor&) override {
    flag_ = true;
    emulator::notify_all_hosts();
    return true;
  }
  std::string describe() const override { return "raises the flag"; }

 private:
  std::atomic<bool>& flag_;
};

}  // namespace sp::emulated
