// SimEngine: hosts, links and actors of SimGrid S4U behind the few words that a simulation needs.
//
// Time       Seconds of the simulation. Tasks run one at a time, in an order that depends on
//            nothing but the program: the same twice, bit for bit.
// Flows      Share the bandwidth of the links they cross fairly (max-min, model CM02). Latency is
//            no property of links here, because it would weigh their shares: callers delay flows.
// Processes  One engine at a time; a second one waits for the first to be gone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "harness/cluster/platform.hpp"

namespace sp {

// Counts permits: pass() takes one and blocks its task until there is one.
class Gate {
 public:
  Gate();
  ~Gate();
  void open();
  void pass();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

struct Flow {
  int from = 0, to = 0;  // ranks
  std::int64_t bytes = 0;
  int channel = 0;     // whose bandwidth it shares on both devices (CommModel::channel_bandwidth)
  double delay_s = 0;  // from now
};

class SimEngine {
 public:
  // devices: of every rank.
  SimEngine(const Platform& platform, const WireMap& wires, const std::vector<int>& devices);
  ~SimEngine();
  SimEngine(const SimEngine&) = delete;
  SimEngine& operator=(const SimEngine&) = delete;

  // The tasks of ranks are started before run(). Whatever they throw goes to `failed`, which is
  // called in the catch block.
  void start_rank(int rank, std::function<void()> task, std::function<void()> failed);
  // A task that ends with the last rank's.
  void start_stream(int rank, std::function<void()> task);
  // Returns when all tasks have ended. Where they wait for each other for ever, `stuck` is called
  // before they are unwound.
  void run(const std::function<void()>& stuck);

  // In tasks.
  double now() const;
  void sleep(double seconds);
  // Of the device's full speed; takes longer while its speed is lowered.
  void compute(int rank, double seconds);
  // One more, or one less, communicator moves data of the rank's device.
  void begin_moving(int rank);
  void end_moving(int rank);
  // Starts every flow after its delay; arrived(index) is called as each one ends. Returns when all
  // have. Empty flows end at once.
  void move(const std::vector<Flow>& flows, const std::function<void(std::size_t)>& arrived);
  // The same without delays and calls: cheap for very many flows.
  void move(const std::vector<Flow>& flows);
  // Unwinds all other tasks.
  void abandon();

  std::int64_t flow_bytes() const;  // moved over links so far

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace sp
