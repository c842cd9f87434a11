// Faults in the messages that carry states of linear attention.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/mutants/faulty_communicator.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/mutants/tensor_edits.hpp"

namespace sp {
namespace {

bool is_state(const Message& message) { return std::string_view(message.label.tensor) == "state"; }

// Runs `after` when the operation has ended.
struct Followed final : Operation {
  Followed(std::unique_ptr<Operation> inner, std::function<void()> after)
      : inner_(std::move(inner)), after_(std::move(after)) {}
  void wait() override {
    inner_->wait();
    after_();
  }
  std::unique_ptr<Operation> inner_;
  std::function<void()> after_;
};

void exchange_contents(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::vector<double> kept = values_of(a[i]);
    assign(a[i], values_of(b[i]));
    assign(b[i], kept);
  }
}

// The first two pieces of a state that is cut arrive in each other's places. The operations hold
// the places: a fault that did would lengthen their lives.
struct PiecesExchanged : Fault {
  using Places = std::vector<Tensor>;
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    const auto places = std::make_shared<Places>();
    for (const Message& m : request.receives) {
      if (is_state(m)) places->push_back(m.data);
    }
    const int piece = places->empty() ? -1 : request.receives.front().label.step;
    std::unique_ptr<Operation> operation = forward(std::move(request));
    if (piece == 0) {
      first_ = places;
      return std::make_unique<Followed>(std::move(operation), [places] {});
    }
    const std::shared_ptr<Places> first = first_.lock();
    if (piece != 1 || first == nullptr || first->front().shape() != places->front().shape())
      return operation;
    return std::make_unique<Followed>(std::move(operation),
                                      [first, places] { exchange_contents(*first, *places); });
  }
  std::weak_ptr<Places> first_;
};

// Sends go where receives should come from, and the reverse, modulo the number of ranks: the last
// rank sends nothing, so some other waits forever.
struct ChainMirrored : Fault {
  std::unique_ptr<Operation> start(Request request, int rank, int size,
                                   const Forward& forward) override {
    for (auto* messages : {&request.sends, &request.receives}) {
      for (Message& m : *messages) {
        if (is_state(m)) m.peer = (2 * rank - m.peer + size) % size;
      }
    }
    return forward(std::move(request));
  }
};

struct GatherReversed : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    std::vector<Message>& all = request.receives;
    if (request.pattern == Pattern::kAllGather && is_state(all.front())) {
      for (std::size_t i = 0, j = all.size() - 1; i < j; ++i, --j)
        std::swap(all[i].data, all[j].data);
    }
    return forward(std::move(request));
  }
};

// What a rank received leaves it again without its own state.
struct PassedOnUnchanged : Fault {
  std::unique_ptr<Operation> start(Request request, int, int, const Forward& forward) override {
    for (Message& m : request.receives) {
      if (is_state(m) && request.pattern == Pattern::kExchange) last_ = m.data;
    }
    for (Message& m : request.sends) {
      const bool same = last_.defined() && last_.shape() == m.data.shape();
      if (is_state(m) && same && request.pattern == Pattern::kExchange) m.data = last_;
    }
    return forward(std::move(request));
  }
  Tensor last_;
};

}  // namespace

std::vector<Mutant> linear_message_mutants() {
  const char* classic = "classic";
  return {
      {"state_pieces_exchanged",
       "two pieces of a state in each other's places",
       classic,
       {"lasp2", "zeco"},
       {},
       inject<PiecesExchanged>},
      {"chain_mirrored",
       "states received from the rank that they should be sent to",
       "OpenNLPLab/LASP, where the rank to send to is the source of the receive",
       {"lasp1", "lasp1_released"},
       {},
       inject<ChainMirrored>},
      {"gather_reversed",
       "gathered states in reverse order of the ranks",
       classic,
       {"lasp2", "lasp2h"},
       {},
       inject<GatherReversed>},
      {"state_passed_on_unchanged",
       "the received state sent on without the own one",
       classic,
       {"lasp1", "lasp1_released"},
       {},
       inject<PassedOnUnchanged>},
  };
}

}  // namespace sp
