// Faults in the messages that an algorithm posts.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string_view>

#include "harness/mutants/faulty_communicator.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

struct Nothing final : Operation {
  void wait() override {}
};

bool is(const Message& message, std::string_view tensor) { return message.label.tensor == tensor; }

Message* find(std::vector<Message>& messages, std::string_view tensor) {
  const auto found = std::find_if(messages.begin(), messages.end(),
                                  [&](const Message& m) { return is(m, tensor); });
  return found == messages.end() ? nullptr : &*found;
}

// Exchanges what two messages carry, not what they say they carry.
template <int kStep>
struct Swapped : Fault {
  Swapped(std::string_view a, std::string_view b) : a_(a), b_(b) {}
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    Message *a = find(request.sends, a_), *b = find(request.sends, b_);
    if (a != nullptr && b != nullptr && a->label.step == kStep &&
        a->data.bytes() == b->data.bytes()) {
      std::swap(a->data, b->data);
    }
    return forward(std::move(request));
  }
  std::string_view a_, b_;
};
struct KeysAndValuesSwapped : Swapped<0> {
  KeysAndValuesSwapped() : Swapped("k", "v") {}
};
struct KeyValueGradientsSwapped : Swapped<1> {
  KeyValueGradientsSwapped() : Swapped("d_k", "d_v") {}
};

struct RingReversed : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    if (request.pattern == Pattern::kExchange && find(request.sends, "k") != nullptr &&
        !request.receives.empty()) {
      const int to = request.sends.front().peer, from = request.receives.front().peer;
      for (Message& message : request.sends) message.peer = from;
      for (Message& message : request.receives) message.peer = to;
    }
    return forward(std::move(request));
  }
};

// Messages that never happen, on both sides: whatever the receive buffer held stays.
template <class Which>
struct Dropped : Fault {
  std::unique_ptr<Operation> start(Request request, int, int size,
                                   const Forward& forward) override {
    if (request.pattern != Pattern::kExchange) return forward(std::move(request));
    const auto lost = [&](const Message& message) { return Which{}(message, size); };
    std::erase_if(request.sends, lost);
    std::erase_if(request.receives, lost);
    return forward(std::move(request));
  }
};
struct HomingHop {
  bool operator()(const Message& m, int size) const {
    return (is(m, "d_k") || is(m, "d_v")) && m.label.step == size - 1;
  }
};
struct LastKeys {
  bool operator()(const Message& m, int size) const {
    return (is(m, "k") || is(m, "v")) && m.label.step == size - 2;
  }
};
struct ReturnedLse {
  bool operator()(const Message& m, int) const { return is(m, "lse") && m.label.step >= 2; }
};
struct TravellingCotangent {
  bool operator()(const Message& m, int) const { return is(m, "d_out") && m.label.step >= 1; }
};
struct TravellingDelta {
  bool operator()(const Message& m, int) const { return is(m, "delta") && m.label.step >= 1; }
};
struct LastReturn {
  bool operator()(const Message& m, int size) const {
    return (is(m, "out") || is(m, "lse") || is(m, "d_q")) && m.label.step == size - 1;
  }
};

struct SendLost : Fault {
  std::unique_ptr<Operation> start(Request request, int rank, int,
                                   const Forward& forward) override {
    if (rank == 0 && request.pattern == Pattern::kExchange && !request.sends.empty() && !lost_) {
      request.sends.pop_back();
      lost_ = true;
    }
    return forward(std::move(request));
  }
  bool lost_ = false;
};

struct SendTwice : Fault {
  std::unique_ptr<Operation> start(Request request, int rank, int,
                                   const Forward& forward) override {
    if (rank == 0 && request.pattern == Pattern::kExchange && !request.sends.empty() && !sent_) {
      request.sends.push_back(request.sends.front());
      sent_ = true;
    }
    return forward(std::move(request));
  }
  bool sent_ = false;
};

// Waits return at once; the operations really end when the next one is posted.
struct WaitForgotten : Fault {
  using Open = std::vector<std::unique_ptr<Operation>>;
  struct Unwaited final : Operation {
    Unwaited(std::shared_ptr<Open> open, std::unique_ptr<Operation> inner)
        : open_(std::move(open)), inner_(std::move(inner)) {}
    void wait() override { open_->push_back(std::move(inner_)); }
    std::shared_ptr<Open> open_;
    std::unique_ptr<Operation> inner_;
  };
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    for (const auto& operation : *open_) operation->wait();
    open_->clear();
    return std::make_unique<Unwaited>(open_, forward(std::move(request)));
  }
  std::shared_ptr<Open> open_ = std::make_shared<Open>();
};

// Passes on its own block at every step instead of the one that arrived.
struct OwnBlockAgain : Fault {
  explicit OwnBlockAgain(std::string_view tensor) : tensor_(tensor) {}
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    if (Message* message = find(request.sends, tensor_); message != nullptr) {
      if (message->label.step == 0) first_ = message->data;
      if (first_.defined() && first_.bytes() == message->data.bytes()) message->data = first_;
    }
    return forward(std::move(request));
  }
  std::string_view tensor_;
  Tensor first_;
};
struct OwnKeysAgain : OwnBlockAgain {
  OwnKeysAgain() : OwnBlockAgain("k") {}
};
struct OwnQueriesAgain : OwnBlockAgain {
  OwnQueriesAgain() : OwnBlockAgain("q") {}
};

struct LastRowLost : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    if (request.pattern == Pattern::kExchange) {
      for (auto* messages : {&request.sends, &request.receives}) {
        for (Message& m : *messages) {
          if (m.data.extent(0) > 1) m.data = m.data.rows(0, m.data.extent(0) - 1);
        }
      }
    }
    return forward(std::move(request));
  }
};

struct NotSummed : Fault {
  std::unique_ptr<Operation> start(Request request, int rank, int,
                                   const Forward& forward) override {
    if (request.pattern == Pattern::kAllReduce) return std::make_unique<Nothing>();
    if (request.pattern == Pattern::kReduceScatter) {
      assign(request.receives.front().data,
             values_of(request.sends[static_cast<std::size_t>(rank)].data));
      return std::make_unique<Nothing>();
    }
    return forward(std::move(request));
  }
};

// Pieces of a collective arrive in the places of their neighbours, where the sizes allow it.
struct PiecesRotated : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    const bool pieces =
        request.pattern == Pattern::kAllGather || request.pattern == Pattern::kAllToAll;
    const auto other = [&](const Message& m) {
      return m.data.bytes() != request.receives.front().data.bytes();
    };
    std::unique_ptr<Operation> operation;
    if (pieces && std::none_of(request.receives.begin(), request.receives.end(), other)) {
      std::vector<Tensor> places;
      for (const Message& m : request.receives) places.push_back(m.data);
      std::rotate(places.begin(), places.begin() + 1, places.end());
      for (std::size_t i = 0; i < places.size(); ++i) request.receives[i].data = places[i];
    }
    return forward(std::move(request));
  }
};

struct ReturnsToNeighbour : Fault {
  std::unique_ptr<Operation> start(Request request, int, int size,
                                   const Forward& forward) override {
    for (Message& m : request.sends) {
      if (is(m, "out") || is(m, "lse") || is(m, "d_q")) m.peer = (m.peer + 1) % size;
    }
    for (Message& m : request.receives) {
      if (is(m, "out") || is(m, "lse") || is(m, "d_q")) m.peer = (m.peer + size - 1) % size;
    }
    return forward(std::move(request));
  }
};

struct SentBufferOverwritten : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    const Message* send =
        request.pattern == Pattern::kExchange ? find(request.sends, "k") : nullptr;
    const Tensor sent = send != nullptr ? send->data : Tensor();
    std::unique_ptr<Operation> operation = forward(std::move(request));
    if (sent.defined())
      assign(sent, std::vector<double>(static_cast<std::size_t>(sent.elements()), 1.0));
    return operation;
  }
};

struct ReceiveBufferTouched : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    const bool exchange = request.pattern == Pattern::kExchange && !request.receives.empty();
    const Tensor arriving = exchange ? request.receives.front().data : Tensor();
    std::unique_ptr<Operation> operation = forward(std::move(request));
    if (arriving.defined() && arriving.elements() > 0) {
      assign(arriving, std::vector<double>(static_cast<std::size_t>(arriving.elements()), 0.0));
    }
    return operation;
  }
};

struct StepMislabelled : Fault {
  std::unique_ptr<Operation> start(Request request, int rank, int,
                                   const Forward& forward) override {
    if (rank == 0) {
      for (Message& m : request.sends) ++m.label.step;
    }
    return forward(std::move(request));
  }
};

}  // namespace

std::vector<Mutant> message_mutants() {
  const char* classic = "classic";
  return {
      {"k_v_swapped",
       "K and V exchanged in step 0",
       classic,
       {"ring/contiguous", "ring/zigzag", "ring/striped", "ring_linear"},
       {},
       inject<KeysAndValuesSwapped>},
      {"dk_dv_swapped",
       "dK and dV exchanged in step 1",
       classic,
       {"ring/contiguous", "ring/zigzag", "ring_linear"},
       {},
       inject<KeyValueGradientsSwapped>},
      {"ring_reversed",
       "blocks come from the wrong neighbour",
       "lucidrains PR 9",
       {"ring/contiguous", "ring/zigzag", "rsa", "ring_bidirectional/zigzag", "ring_linear",
        "ring_linear_right"},
       {},
       inject<RingReversed>},
      {"homing_hop_missing",
       "dK, dV never travel the last hop home",
       "classic, easy to forget",
       {"ring/contiguous", "ring/zigzag", "ring_bidirectional/zigzag", "token_ring_hybrid",
        "ring_linear", "mesh_attention"},
       {},
       inject<Dropped<HomingHop>>},
      {"last_keys_missing",
       "the last exchange of K, V left out",
       "listing of arXiv:2310.01889",
       {"ring/contiguous", "ring/striped", "ring_two_channel/zigzag", "rsa", "ring_linear",
        "ring_linear_right", "mesh_attention"},
       {},
       inject<Dropped<LastKeys>>},
      {"returned_lse_stale",
       "returned log-sum-exp of an earlier step",
       classic,
       {"token_ring/contiguous", "token_ring/zigzag", "dist_flash"},
       {},
       inject<Dropped<ReturnedLse>>},
      {"cotangent_stale",
       "dO does not travel with Q",
       classic,
       {"token_ring/contiguous", "token_ring/zigzag", "pass_q", "burst", "dist_flash"},
       {},
       inject<Dropped<TravellingCotangent>>},
      {"delta_stale",
       "delta does not travel with Q",
       classic,
       {"token_ring/contiguous", "token_ring/zigzag", "pass_q", "burst", "dist_flash"},
       {},
       inject<Dropped<TravellingDelta>>},
      {"last_return_missing",
       "the exposed last return left out",
       classic,
       {"token_ring/contiguous", "token_ring/zigzag", "token_ring_hybrid", "burst"},
       {},
       inject<Dropped<LastReturn>>},
      {"send_lost",
       "one message never sent",
       "ring-flash-attention #39",
       {"ring/zigzag", "token_ring/zigzag", "rsa", "ring_two_channel/zigzag", "ring_linear",
        "lasp1"},
       {},
       inject<SendLost>},
      {"send_twice",
       "one message sent twice",
       "pytorch #174942",
       {"ring/zigzag", "token_ring/zigzag", "rsa", "ring_linear", "lasp1"},
       {},
       inject<SendTwice>},
      {"wait_forgotten",
       "receive buffer read before the message arrived",
       classic,
       {"ring/contiguous", "token_ring/zigzag", "allgather", "ulysses", "rsa", "rsa_linformer",
        "ring_linear", "lasp2", "lasp1", "zeco", "megatron_sp_linear", "lasp2h", "pass_q", "burst",
        "dist_flash", "mesh_attention"},
       {},
       inject<WaitForgotten>},
      {"own_keys_again",
       "own keys passed on at every hop",
       "diffusers #14265",
       {"ring/contiguous", "ring/zigzag", "rsa", "ring_linear", "ring_linear_right",
        "mesh_attention"},
       {},
       inject<OwnKeysAgain>},
      {"own_queries_again",
       "own queries passed on at every hop",
       classic,
       {"token_ring/contiguous", "token_ring/zigzag", "pass_q", "burst"},
       {},
       inject<OwnQueriesAgain>},
      {"last_row_lost",
       "messages one row short",
       "ring-flash-attention #51 (ragged shards)",
       {"ring/zigzag", "token_ring/contiguous", "rsa_skip", "ring_linear", "lasp1",
        "mesh_attention"},
       {},
       inject<LastRowLost>},
      {"not_summed",
       "sum over ranks left out (wrong group)",
       "ColossalAI PR 6071",
       {"rsa", "rsa_linformer", "allgather", "megatron_sp_linear"},
       {},
       inject<NotSummed>},
      {"pieces_rotated",
       "pieces of a collective in the wrong order",
       "pytorch #174942, slime #1871, ms-swift #10071",
       {"allgather", "ulysses", "megatron_sp_linear", "lasp2", "lasp2h"},
       {},
       inject<PiecesRotated>},
      {"returns_to_neighbour",
       "results returned to the wrong owner",
       "Cornstarch PR 80",
       {"token_ring/contiguous", "token_ring/zigzag", "mesh_attention"},
       {},
       inject<ReturnsToNeighbour>},
      {"sent_buffer_overwritten",
       "sent buffer changed in flight",
       classic,
       {"ring/zigzag", "rsa", "ring_linear"},
       {},
       inject<SentBufferOverwritten>},
      {"receive_buffer_touched",
       "receive buffer written in flight",
       classic,
       {"ring/zigzag", "token_ring/zigzag"},
       {},
       inject<ReceiveBufferTouched>},
      {"step_mislabelled",
       "sender and receiver disagree on the step",
       classic,
       {"ring/zigzag", "allgather", "ring_linear", "lasp2", "lasp1"},
       {},
       inject<StepMislabelled>},
  };
}

}  // namespace sp
