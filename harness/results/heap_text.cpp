// SPDX-License-Identifier: Apache-2.0
#include "harness/results/heap_text.hpp"

#include <cstring>
#include <utility>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

thread_local HeapTexts* in_force = nullptr;

[[noreturn]] void changed() {
  throw Error(ErrorKind::kUsage, "the file has changed while it was read");
}

}  // namespace

HeapTexts::HeapTexts() { in_force = this; }
HeapTexts::HeapTexts(std::string recorded) : plays_(true), record_(std::move(recorded)) {
  in_force = this;
}
HeapTexts::~HeapTexts() { in_force = nullptr; }

void HeapTexts::put(std::uint64_t number) {
  record_.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void HeapTexts::put(std::string_view text) {
  put(text.size());
  record_.append(text);
}

std::uint64_t HeapTexts::next_number() {
  std::uint64_t number = 0;
  if (record_.size() - position_ < sizeof number) changed();
  std::memcpy(&number, record_.data() + position_, sizeof number);
  position_ += sizeof number;
  return number;
}

std::string HeapTexts::next_text() {
  const std::uint64_t size = next_number();
  if (record_.size() - position_ < size) changed();
  position_ += size;
  return record_.substr(position_ - size, size);
}

std::vector<std::string> HeapTexts::read(const std::string& what,
                                         const std::function<std::vector<std::string>()>& read) {
  std::vector<std::string> texts;
  if (!plays_) {
    texts = read();
    put(what);
    put(texts.size());
    for (const std::string& text : texts) put(text);
    return texts;
  }
  if (next_text() != what) changed();
  for (std::uint64_t left = next_number(); left > 0; --left) texts.push_back(next_text());
  return texts;
}

std::vector<std::string> read_heap_texts(const std::string& what,
                                         const std::function<std::vector<std::string>()>& read) {
  return in_force == nullptr ? read() : in_force->read(what, read);
}

}  // namespace sp
