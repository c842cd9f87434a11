// Cutting a chunk of tokens into documents, and states on their way into scratch and back.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/linear_pieces.hpp"

#include <algorithm>

namespace sp {
namespace {

// The ids of one sequence.
class Ids {
 public:
  Ids(const Tensor& segments, std::int64_t b) {
    if (!segments.defined()) return;
    SP_CHECK(segments.dtype() == DType::kI32, "segment ids are i32");
    ids_ = segments.as<std::int32_t>() + b * segments.stride(0);
    stride_ = segments.stride(1);
  }
  bool begins(std::int64_t position) const {
    return position == 0 ||
           (ids_ != nullptr && ids_[position * stride_] != ids_[(position - 1) * stride_]);
  }
  bool absent() const { return ids_ == nullptr; }

 private:
  const std::int32_t* ids_ = nullptr;  // [N]
  std::int64_t stride_ = 0;
};

}  // namespace

std::vector<Piece> pieces_of(const Run& tokens, const LinearTerms& terms, std::int64_t b) {
  std::vector<Piece> pieces;
  if (tokens.count == 0) return pieces;
  if (!terms.causal) return {{0, tokens.count, true}};
  const Ids ids(terms.segments, b);
  pieces.push_back({0, tokens.count, !ids.begins(tokens.first)});
  if (ids.absent()) return pieces;
  for (std::int64_t i = 1; i < tokens.count; ++i) {
    if (!ids.begins(tokens.first + i)) continue;
    pieces.back().count = i - pieces.back().begin;
    pieces.push_back({i, tokens.count - i, false});
  }
  return pieces;
}

bool begins_document(const Run& tokens, const LinearTerms& terms, std::int64_t b) {
  if (tokens.count == 0) return false;
  const Ids ids(terms.segments, b);
  if (ids.absent()) return tokens.first == 0;
  for (std::int64_t i = 0; i < tokens.count; ++i) {
    if (ids.begins(tokens.first + i)) return true;
  }
  return false;
}

template <class T>
void load_state(T* target, const Tensor& state, std::int64_t b, std::int64_t s, std::int64_t F,
                std::int64_t W) {
  const std::int64_t stride = tile::padded(W);
  if (!state.defined()) {
    std::fill(target, target + F * stride, T{0});
    return;
  }
  const Matrix head = head_of(state, b, s);
  pack(target, stride, head.window(0, F, 0, W));
}

template <class T>
void store_state(const Tensor& state, const T* source, std::int64_t b, std::int64_t s,
                 std::int64_t W) {
  if (!state.defined()) return;
  const Matrix head = head_of(state, b, s);
  store(head.window(0, head.rows, 0, W), source, tile::padded(W));
}

template void load_state(float*, const Tensor&, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t);
template void load_state(double*, const Tensor&, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t);
template void store_state(const Tensor&, const float*, std::int64_t, std::int64_t, std::int64_t);
template void store_state(const Tensor&, const double*, std::int64_t, std::int64_t, std::int64_t);

}  // namespace sp
