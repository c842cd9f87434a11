// Tiles of tokens, and what the mask does to a tile of queries against a tile of keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "optimized/kernels/kernels.hpp"

namespace sp {

inline constexpr std::int64_t kTileRows = 64;  // queries or keys of one tile

struct TokenTile {
  std::int64_t begin = 0;  // local index of the first token
  Run run;                 // positions of the tokens, at most kTileRows
  std::int64_t count() const { return run.count; }
};

// Every token once, in order; no tile crosses a run.
std::vector<TokenTile> tiles_of(const Tokens& tokens);

// The mask as one sequence of the batch sees it.
class SequenceMask {
 public:
  SequenceMask(const MaskTerms& terms, std::int64_t b);

  bool sees(std::int64_t query, std::int64_t key) const {
    return band_.sees(query, key) && (ids_ == nullptr || id(query) == id(key));
  }

  Visibility classify(const TokenTile& queries, const TokenTile& keys) const;

  // scores[i] = -inf for each key that the query does not see.
  template <class T>
  void hide(T* scores, std::int64_t query, const Run& keys) const {
    for (std::int64_t j = 0; j < keys.count; ++j) {
      if (!sees(query, keys.position(j))) scores[j] = -std::numeric_limits<T>::infinity();
    }
  }

 private:
  struct Range {
    std::int32_t low, high;
  };
  Range id_range(const Run& run) const;
  std::int32_t id(std::int64_t position) const { return ids_[position * id_stride_]; }

  Band band_;
  const std::int32_t* ids_ = nullptr;  // [N], null: no segments
  std::int64_t id_stride_ = 0;
};

}  // namespace sp
