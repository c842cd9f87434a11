// Headers and payloads.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/mpi/mpi_transfer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <type_traits>
#include <utility>

#include "optimized/comm/mpi/mpi_engine.hpp"

namespace sp {
namespace {

static_assert(std::is_trivially_copyable_v<MpiHeader> && sizeof(MpiHeader) <= 64);

MpiHeader header_from(const Envelope& envelope, int payload_tag) {
  MpiHeader header;
  const std::size_t length = std::min(std::strlen(envelope.label.tensor), header.tensor.size() - 1);
  std::memcpy(header.tensor.data(), envelope.label.tensor, length);
  header.bytes = envelope.bytes;
  header.step = envelope.label.step;
  header.payload_tag = payload_tag;
  header.pattern = envelope.pattern;
  header.dtype = envelope.dtype;
  return header;
}

Envelope envelope_from(const MpiHeader& header) {
  return {header.pattern, header.dtype, header.bytes, {header.tensor.data(), header.step}};
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw Error(ErrorKind::kEnvironment, fmt::format("{} failed: {}", call, text.data()));
}

MpiLanes MpiLanes::duplicate(MPI_Comm world) {
  MpiLanes lanes;
  check_mpi(MPI_Comm_dup(world, &lanes.headers), "MPI_Comm_dup");
  check_mpi(MPI_Comm_dup(world, &lanes.payloads), "MPI_Comm_dup");
  return lanes;
}

MpiLanes MpiLanes::split(int colour, int key) const {
  MpiLanes lanes;
  check_mpi(MPI_Comm_split(headers, colour, key, &lanes.headers), "MPI_Comm_split");
  check_mpi(MPI_Comm_split(payloads, colour, key, &lanes.payloads), "MPI_Comm_split");
  return lanes;
}

void MpiLanes::free() {
  MPI_Comm_free(&headers);
  MPI_Comm_free(&payloads);
}

MpiTransfer::MpiTransfer(std::shared_ptr<MpiEngine> engine, const MpiLanes& lanes,
                         std::int64_t piece_bytes, const std::vector<int>& members, int rank)
    : engine_(std::move(engine)),
      lanes_(lanes),
      piece_bytes_(piece_bytes),
      members_(members),
      rank_(rank) {
  engine_->add(this);
}

// Only errors end here before the transfer is done. Receives are cancelled, so that nothing is
// written to memory that is given back; sends get a moment to leave.
MpiTransfer::~MpiTransfer() {
  engine_->remove(this);
  if (done_) return;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  for (Part& part : parts_) {
    if (!part.is_send && part.header_request != MPI_REQUEST_NULL) {
      MPI_Cancel(&part.header_request);
      MPI_Wait(&part.header_request, MPI_STATUS_IGNORE);
    }
    part.pieces.push_back(part.header_request);
    for (MPI_Request& request : part.pieces) {
      int completed = 0;
      while (MPI_Test(&request, &completed, MPI_STATUS_IGNORE) == MPI_SUCCESS && completed == 0 &&
             std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
      }
      if (request == MPI_REQUEST_NULL) continue;
      if (!part.is_send) MPI_Cancel(&request);
      MPI_Request_free(&request);
    }
  }
  engine_->bury(std::move(headers_));
}

void MpiTransfer::send(const Message& message, Pattern pattern, int header_tag, int payload_tag) {
  const Envelope envelope = envelope_of(pattern, message);
  MpiHeader& header = headers_.emplace_back(header_from(envelope, payload_tag));
  parts_.push_back({true, message.peer, message.data, envelope, &header, MPI_REQUEST_NULL, {}});
  Part& part = parts_.back();
  check_mpi(MPI_Isend(&header, sizeof header, MPI_BYTE, message.peer, header_tag, lanes_.headers,
                      &part.header_request),
            "MPI_Isend");
  start_payload(part, payload_tag);
}

void MpiTransfer::receive(const Message& message, Pattern pattern, int header_tag) {
  MpiHeader& header = headers_.emplace_back();
  parts_.push_back({false,
                    message.peer,
                    message.data,
                    envelope_of(pattern, message),
                    &header,
                    MPI_REQUEST_NULL,
                    {}});
  check_mpi(MPI_Irecv(&header, sizeof header, MPI_BYTE, message.peer, header_tag, lanes_.headers,
                      &parts_.back().header_request),
            "MPI_Irecv");
}

void MpiTransfer::start_payload(Part& part, int tag) {
  std::byte* data = part.data.data();
  const std::int64_t bytes = part.data.bytes();
  for (std::int64_t begin = 0; begin < bytes; begin += piece_bytes_) {
    const auto count = static_cast<int>(std::min(piece_bytes_, bytes - begin));
    MPI_Request& request = part.pieces.emplace_back(MPI_REQUEST_NULL);
    const int code =
        part.is_send
            ? MPI_Isend(data + begin, count, MPI_BYTE, part.peer, tag, lanes_.payloads, &request)
            : MPI_Irecv(data + begin, count, MPI_BYTE, part.peer, tag, lanes_.payloads, &request);
    check_mpi(code, part.is_send ? "MPI_Isend" : "MPI_Irecv");
  }
}

bool MpiTransfer::poll() {
  bool all = true, changed = false;
  for (Part& part : parts_) {
    if (part.done) continue;
    if (part.header_request != MPI_REQUEST_NULL) changed = take_header(part) || changed;
    if (part.header_request == MPI_REQUEST_NULL) {
      int complete = 0;
      check_mpi(MPI_Testall(static_cast<int>(part.pieces.size()), part.pieces.data(), &complete,
                            MPI_STATUSES_IGNORE),
                "MPI_Testall");
      part.done = complete != 0;
      changed = changed || part.done;
    }
    all = all && part.done;
  }
  done_ = all;
  return changed;
}

// The header has left, or has arrived: then the payload may come.
bool MpiTransfer::take_header(Part& part) {
  int complete = 0;
  check_mpi(MPI_Test(&part.header_request, &complete, MPI_STATUS_IGNORE), "MPI_Test");
  if (complete != 0 && !part.is_send) {
    check_header(part);
    start_payload(part, part.header->payload_tag);
  }
  return complete != 0;
}

void MpiTransfer::check_header(const Part& part) const {
  // The expected label goes through a header too, which cuts it at the same length.
  const MpiHeader expected = header_from(part.envelope, 0);
  if (matches(envelope_from(*part.header), envelope_from(expected))) return;
  throw Error(ErrorKind::kInternal,
              describe_mismatch(world_rank(part.peer), envelope_from(*part.header),
                                world_rank(rank_), part.envelope));
}

std::string MpiTransfer::describe_wait() const {
  constexpr int kShown = 4;  // a collective of 64 ranks would fill the screen
  int undone = 0;
  std::string words;
  for (const bool sends : {false, true}) {  // what a rank lacks says more than what it offers
    for (const Part& part : parts_) {
      if (part.done || part.is_send != sends || undone++ >= kShown) continue;
      words += words.empty() ? "" : ", ";
      words += sp::describe_wait(part.is_send, world_rank(part.peer), part.envelope);
    }
  }
  if (undone > kShown) words += fmt::format(", and {} more", undone - kShown);
  return words;
}

}  // namespace sp
