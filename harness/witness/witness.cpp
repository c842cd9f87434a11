// SPDX-License-Identifier: Apache-2.0
#include "harness/witness/witness.hpp"

#include <fmt/format.h>

#include <utility>

#include "optimized/comm/decorator.hpp"

namespace sp {
namespace {

using Contents = std::vector<MessageBoard::Content>;

Contents contents_of(const std::vector<Message>& messages) {
  Contents contents;
  for (const Message& message : messages) contents.push_back(MessageBoard::content_of(message));
  return contents;
}

// What a rank waits for, and what to do when it is there.
class WitnessedOperation final : public Operation {
 public:
  WitnessedOperation(std::unique_ptr<Operation> inner, std::function<void()> arrived)
      : inner_(std::move(inner)), arrived_(std::move(arrived)) {}
  void wait() override {
    inner_->wait();
    arrived_();
  }

 private:
  std::unique_ptr<Operation> inner_;
  std::function<void()> arrived_;
};

class WitnessedCommunicator final : public CommunicatorDecorator {
 public:
  template <class Inner>
  WitnessedCommunicator(Inner&& inner, std::shared_ptr<WitnessedRank> me, std::string channel)
      : CommunicatorDecorator(std::forward<Inner>(inner)),
        me_(std::move(me)),
        channel_(std::move(channel)) {
    board().join(channel_, rank(), me_->rank);
  }

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    const Message* first = !request.sends.empty()      ? request.sends.data()
                           : !request.receives.empty() ? request.receives.data()
                                                       : nullptr;
    if (first != nullptr)
      me_->posted = fmt::format("{} of step {}", first->label.tensor, first->label.step);
    std::function<void()> arrived =
        request.pattern == Pattern::kExchange ? exchange(request) : collective(request);
    return std::make_unique<WitnessedOperation>(start_inner(std::move(request)),
                                                std::move(arrived));
  }
  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    return std::make_unique<WitnessedCommunicator>(
        split_inner(colour, key), me_, fmt::format("{}/{}:{}", channel_, splits_++, colour));
  }

 private:
  MessageBoard& board() const { return me_->witness.messages(); }

  Contents stamped(const std::vector<Message>& messages) const {
    Contents contents = contents_of(messages);
    for (MessageBoard::Content& content : contents) content.when = me_->witness.now();
    return contents;
  }

  std::function<void()> exchange(const Request& request) {
    for (const Message& message : request.sends)
      board().send(channel_, rank(), message.peer, MessageBoard::content_of(message));
    std::vector<std::int64_t> numbers;
    for (const Message& message : request.receives)
      numbers.push_back(board().expect(channel_, message.peer, rank()));
    return [this, numbers, sends = request.sends, before = contents_of(request.sends),
            receives = request.receives] {
      Contents contents = stamped(receives);
      for (std::size_t i = 0; i < receives.size(); ++i)
        board().arrived(channel_, receives[i].peer, rank(), numbers[i], std::move(contents[i]));
      for (std::size_t i = 0; i < sends.size(); ++i) {
        if (contents_of({sends[i]}).front().bytes != before[i].bytes)
          me_->witness.found(me_->rank, fmt::format("message {} to rank {} of its group was "
                                                    "written while it was on its way",
                                                    before[i].label, sends[i].peer));
      }
    };
  }

  std::function<void()> collective(const Request& request) {
    const std::int64_t n = collectives_++;
    board().put(
        channel_, n, request.pattern, request.root, rank(),
        contents_of(request.pattern == Pattern::kAllReduce ? request.receives : request.sends));
    return [this, n, receives = request.receives] {
      board().got(channel_, n, rank(), stamped(receives));
    };
  }

  std::shared_ptr<WitnessedRank> me_;
  std::string channel_;
  int splits_ = 0;
  std::int64_t collectives_ = 0;
};

}  // namespace

double Witness::unit(bool rounds_operands) const {
  const DType dtype = problem_.dtype;
  if (dtype == DType::kF64) return 0x1p-50;  // the yardstick itself rounds
  return unit_roundoff(rounds_operands && operands_ == Operands::kStorage ? dtype
                                                                          : accumulator_of(dtype));
}

std::int64_t Witness::now() {
  const std::lock_guard lock(mutex_);
  return ++clock_;
}

void Witness::found(int rank, const std::string& what) {
  const std::lock_guard lock(mutex_);
  findings_[++clock_] = fmt::format("rank {}: {}", rank, what);
}

void Witness::symptom(int rank, const std::string& what) {
  const std::lock_guard lock(mutex_);
  symptoms_[++clock_] = fmt::format("rank {}: {}", rank, what);
}

std::string Witness::first_wrong() {
  std::map<std::int64_t, std::string> all = messages_.wrong();
  const std::lock_guard lock(mutex_);
  all.insert(findings_.begin(), findings_.end());
  if (!all.empty()) return all.begin()->second;
  return symptoms_.empty() ? std::string() : symptoms_.begin()->second;
}

std::string WitnessedRank::where() const {
  return posted.empty() ? std::string() : fmt::format(", after it posted {}", posted);
}

Rig witnessed(Rig rig, Witness& witness) {
  // A rank's kernels do not know their rank. A rig wraps both on the rank's thread, first the
  // communicator.
  static thread_local std::shared_ptr<WitnessedRank> here;
  rig.wrap_communicator = [wrap = std::move(rig.wrap_communicator),
                           &witness](Communicator& comm) -> std::unique_ptr<Communicator> {
    here = std::make_shared<WitnessedRank>(WitnessedRank{witness, comm.rank(), {}});
    if (wrap) return std::make_unique<WitnessedCommunicator>(wrap(comm), here, "");
    return std::make_unique<WitnessedCommunicator>(comm, here, "");
  };
  rig.wrap_kernels = [wrap = std::move(rig.wrap_kernels)](Kernels& kernels, Memory& spare) {
    std::unique_ptr<Kernels> wrapped = wrap ? wrap(kernels, spare) : nullptr;
    Kernels& inner = wrapped ? *wrapped : kernels;
    return witnessed_kernels(inner, std::move(wrapped), std::exchange(here, nullptr));
  };
  return rig;
}

}  // namespace sp
