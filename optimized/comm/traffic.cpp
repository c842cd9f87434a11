// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/traffic.hpp"

#include "optimized/sharding/layout.hpp"

namespace sp {

Traffic all_gather_traffic(std::int64_t my_bytes, int ranks) {
  return {my_bytes * (ranks - 1), ranks - 1};
}

Traffic scatter_traffic(std::int64_t total_bytes, std::int64_t my_bytes, int ranks) {
  return {total_bytes - my_bytes, ranks - 1};
}

Traffic all_reduce_traffic(std::int64_t elements, std::int64_t element_bytes, int rank, int ranks) {
  const std::int64_t mine =
      part_begin(elements, ranks, rank + 1) - part_begin(elements, ranks, rank);
  Traffic traffic = scatter_traffic(elements * element_bytes, mine * element_bytes, ranks);
  return traffic += all_gather_traffic(mine * element_bytes, ranks);
}

}  // namespace sp
