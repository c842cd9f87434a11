// What can be compared of a result file: numbers with names, and the samples behind them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace sp {

struct StoredNumber {
  std::string row;              // "lasp2/thread, seq_len 65536, ranks 8, forward"
  std::string quantity;         // "time"
  std::string unit;             // "s"
  std::string kind;             // measured, simulated, counted or formula
  std::vector<double> samples;  // of repetitions; one without any; empty: there is no value
};

struct StoredNumbers {
  std::string schema;  // seqpar.run or seqpar.replay
  std::vector<StoredNumber> numbers;
};

// Of a run file the data sets of the groups samples, cost and verification, of a replay its rows.
// Throws Error(kUsage) that names the file if it is damaged or of another schema.
StoredNumbers read_stored_numbers(const std::string& path);

}  // namespace sp
