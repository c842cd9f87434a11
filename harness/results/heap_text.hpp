// Strings of variable length, in files that somebody else wrote.
//
// They lie in a heap of their own inside the file. Where that is damaged, the HDF5 library (1.10)
// writes past its buffers, often without a crash. So while a foreign file is read, only the child
// of foreign_file.hpp asks the library for such strings; it records them, and this process plays
// the record instead.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace sp {

// What read() returns, or what the record says; `what` must then be the same as in the recording.
// Throws Error(kUsage) if it is not: the file has changed in between.
std::vector<std::string> read_heap_texts(const std::string& what,
                                         const std::function<std::vector<std::string>()>& read);

// In force for read_heap_texts on this thread while it lives.
class HeapTexts {
 public:
  HeapTexts();                               // records
  explicit HeapTexts(std::string recorded);  // plays
  ~HeapTexts();
  HeapTexts(const HeapTexts&) = delete;
  HeapTexts& operator=(const HeapTexts&) = delete;

  const std::string& record() const { return record_; }
  std::vector<std::string> read(const std::string& what,
                                const std::function<std::vector<std::string>()>& read);

 private:
  void put(std::uint64_t number);
  void put(std::string_view text);
  std::uint64_t next_number();
  std::string next_text();

  bool plays_ = false;
  std::string record_;  // every text behind its length
  std::size_t position_ = 0;
};

}  // namespace sp
