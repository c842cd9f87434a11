// MpiTransfer: a group of messages under way in MPI.
//
// Every message is a header, which says what it is, and a payload in pieces. The payload is
// received only after the header has been compared with what is expected, so that a wrong message
// is an error with names and never a truncation. Headers of one channel match in post order; each
// names the tag of its payload.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "optimized/comm/envelope.hpp"
#include "optimized/comm/host_communicator.hpp"

namespace sp {

class MpiEngine;

void check_mpi(int code, const char* call);  // throws Error(kEnvironment) with MPI's words

struct MpiHeader {
  std::array<char, 32> tensor{};  // the label, cut if longer
  std::int64_t bytes = 0;
  std::int32_t step = 0;
  std::int32_t payload_tag = 0;
  Pattern pattern = Pattern::kExchange;
  DType dtype = DType::kF32;
};

// The two MPI communicators behind one of ours.
struct MpiLanes {
  MPI_Comm headers = MPI_COMM_NULL;
  MPI_Comm payloads = MPI_COMM_NULL;

  static MpiLanes duplicate(MPI_Comm world);  // collective
  MpiLanes split(int colour, int key) const;  // collective
  void free();
};

class MpiTransfer final : public Transfer {
 public:
  MpiTransfer(std::shared_ptr<MpiEngine> engine, const MpiLanes& lanes, std::int64_t piece_bytes,
              const std::vector<int>& members, int rank);
  ~MpiTransfer() override;

  // peer: rank in the communicator; tags are those of the two lanes.
  void send(const Message& message, Pattern pattern, int header_tag, int payload_tag);
  void receive(const Message& message, Pattern pattern, int header_tag);

  bool poll();  // takes headers, starts payloads; true if anything has changed
  bool done() override { return done_; }
  std::string describe_wait() const;

 private:
  struct Part {
    bool is_send;
    int peer;
    Tensor data;
    Envelope envelope;
    MpiHeader* header;
    MPI_Request header_request;
    std::vector<MPI_Request> pieces;
    bool done = false;
  };

  bool take_header(Part& part);
  void check_header(const Part& part) const;
  void start_payload(Part& part, int tag);
  int world_rank(int rank) const { return members_[static_cast<std::size_t>(rank)]; }

  std::shared_ptr<MpiEngine> engine_;
  MpiLanes lanes_;
  std::int64_t piece_bytes_;
  std::vector<int> members_;
  int rank_;
  std::deque<MpiHeader> headers_;  // addresses that stay
  std::vector<Part> parts_;
  bool done_ = false;
};

}  // namespace sp
