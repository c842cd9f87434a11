// The first wrong intermediate of a run: every kernel and every message, on every rank, is held against what it should
// have done with what it was given.
//
// Kernels    do their work again in double on the same operands (plain loops over pairs for softmax attention, the CPU's
//            kernels in f64 else), and thrice more with operands that are off by a rounding each: rows may err by what those
//            stray, times 64.
// Messages   must arrive as they were when they were posted, and sums be sums.
// Operands   of attention must be the rows of the problem at the positions that the kernel is told; log-sum-exp and
//            delta those of complete rows.
//
// So a fault is seen where it happens, not where it arrives: what follows works rightly on wrong data. All tensors must be
// readable by the host (host_window.hpp), all ranks live in this process. A run takes about ten times as long.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "harness/run/backend.hpp"
#include "harness/witness/messages.hpp"

namespace sp {

class Witness {
 public:
  // exact: of the same problem, or null. All must outlive the witness.
  Witness(const Problem& problem, const Inputs& inputs, const Outputs* exact, Operands operands)
      : problem_(problem), inputs_(inputs), exact_(exact), operands_(operands) {}

  // One line; empty: every kernel and every message did what it should. To be asked after the run.
  std::string first_wrong();

  // ---- For the ranks, from any thread ---------------------------------------------------------
  const Problem& problem() const { return problem_; }
  const Inputs& inputs() const { return inputs_; }
  const Outputs* exact() const { return exact_; }
  // By this much the operands of the yardstick are off: of kernels that may round what they multiply to storage, or of
  // all others.
  double unit(bool rounds_operands) const;
  std::int64_t now();  // later than all earlier ones
  void found(int rank, const std::string& what);
  // A result that is not finite follows from operands that were not: told if nothing else is.
  void symptom(int rank, const std::string& what);
  MessageBoard& messages() { return messages_; }

 private:
  const Problem& problem_;
  const Inputs& inputs_;
  const Outputs* exact_;
  const Operands operands_;
  std::mutex mutex_;
  std::int64_t clock_ = 0;
  std::map<std::int64_t, std::string> findings_, symptoms_;  // by when
  MessageBoard messages_;
};

// The same rig with the witness outermost, between the algorithm and all faults.
Rig witnessed(Rig rig, Witness& witness);

// What a rank's kernels and communicator share: where it is in its program.
struct WitnessedRank {
  Witness& witness;
  int rank = 0;
  std::string posted;  // the last message, in words; empty: none
  std::string where() const;
};

std::unique_ptr<Kernels> witnessed_kernels(Kernels& inner, std::unique_ptr<Kernels> owned,
                                           std::shared_ptr<WitnessedRank> rank);

// What is wrong with the operands of a block of attention; empty: nothing, or nobody can say.
std::string misplaced_operand(const Witness& witness, const AttentionBlock& block);
std::string misplaced_operand(const Witness& witness, const LinearBlock& block,
                              std::string_view used);  // of "qkv"
std::string incomplete_rows(const Witness& witness, const AttentionBlock& block,
                            const Tensor& d_out, const Tensor& lse, const Tensor& delta);

}  // namespace sp
