// FlightBook: which buffers of one rank belong to its communicators right now.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "optimized/comm/communicator.hpp"
#include "optimized/comm/post_order.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

enum class Direction : std::uint8_t { kSend, kReceive };

std::string describe(Direction direction, const Message& message);  // k step 3 to rank 2

class FlightBook {
 public:
  using Id = std::int64_t;

  // Throws if a buffer of the request is in flight already; sends of one buffer may coincide.
  Id enter(const Request& request);
  void leave(Id id) { flights_.erase(id); }  // waited for
  void abandon(Id id);                       // destroyed without a wait

  void check_kernel(const char* kernel, std::span<const Tensor> reads,
                    std::span<const Tensor> writes) const;
  std::string unfinished() const;  // "" if there is none
  PostLog& posts() { return posts_; }

 private:
  struct Buffer {
    Direction direction;
    Message message;
  };
  struct Flight {
    std::string what;
    std::vector<Buffer> buffers;
  };

  void check_own_buffers(const Flight& flight, Pattern pattern) const;
  void check_other_flights(const Flight& flight) const;
  const Buffer* find(const Tensor& tensor, bool writes) const;

  std::map<Id, Flight> flights_;
  std::vector<std::string> abandoned_;
  Id last_ = 0;
  PostLog posts_;
};

}  // namespace sp
