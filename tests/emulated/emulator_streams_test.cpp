// Streams and events: what orders operations, and what does not.
// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "harness/emulator/machine.hpp"
#include "tests/emulated/runtime_fixture.hpp"

namespace sp::emulated {
namespace {

// Notes in which order operations ran.
class Note final : public emulator::StreamOperation {
 public:
  Note(std::string& log, char name) : log_(log), name_(name) {}
  bool advance(const emulator::Accessor&) override {
    log_ += name_;
    return true;
  }
  std::string describe() const override { return std::string("note ") + name_; }

 private:
  std::string& log_;
  char name_;
};
void note(cudaStream_t stream, std::string& log, char name) {
  emulator::enqueue(stream, std::make_unique<Note>(log, name));
}

TEST(EmulatorStreams, RunLazilyInOrderWithinAndInAnyOrderBetween) {
  std::set<std::string> orders;
  expect_clean([&] {
    TestStream one, two;
    std::string log;
    note(one, log, 'a');
    note(two, log, 'x');
    note(one, log, 'b');
    note(two, log, 'y');
    EXPECT_EQ(log, "");
    cudaDeviceSynchronize();
    EXPECT_LT(log.find('a'), log.find('b'));
    EXPECT_LT(log.find('x'), log.find('y'));
    orders.insert(log);
  });
  EXPECT_GE(orders.size(), 3u);
}

TEST(EmulatorStreams, TheSameSeedGivesTheSameOrder) {
  std::set<std::string> orders;
  for (int i = 0; i < 5; ++i) {
    emulator::configure({.seed = 7});
    TestStream one, two;
    std::string log;
    for (const char name : {'a', 'b', 'c', 'd'}) note(one, log, name);
    for (const char name : {'w', 'x', 'y', 'z'}) note(two, log, name);
    cudaDeviceSynchronize();
    orders.insert(log);
  }
  EXPECT_EQ(orders.size(), 1u);
}

// Seen for some seed.
TEST(EmulatorStreams, SynchroniseRunsNoMoreThanItMust) {
  bool late = false;
  expect_clean([&] {
    TestStream one, two;
    std::string log;
    note(one, log, 'a');
    note(two, log, 'x');
    cudaStreamSynchronize(one);
    EXPECT_NE(log.find('a'), std::string::npos);
    late = late || log == "a";
    cudaDeviceSynchronize();  // the log must outlive its notes
  });
  EXPECT_TRUE(late);
}

// A writer on one stream, a reader on another.
std::function<void()> producer_consumer(bool event) {
  return [=] {
    TestStream producer, consumer;
    TestFloats x(producer, 8), y(consumer, 8);
    TestEvent written, read;
    fill_in(producer, x, 8, 1);
    if (event) {
      cudaEventRecord(written, producer);
      cudaStreamWaitEvent(consumer, written);
    }
    increment_in(consumer, y, x, 8);
    cudaEventRecord(read, consumer);  // before x is freed
    cudaStreamWaitEvent(producer, read);
    cudaStreamSynchronize(consumer);
  };
}

TEST(EmulatorOrder, FindsAReadThatNoEventOrders) {
  expect_clean(producer_consumer(true));
  // Read first: not yet allocated, or never written. Written first: no order.
  int unordered = 0;
  for (std::uint64_t seed = 1; seed <= kRuntimeSeeds; ++seed) {
    emulator::configure({.seed = seed});
    producer_consumer(false)();
    const FaultReport fault = emulator::take_fault();
    ASSERT_TRUE(fault.found) << seed;
    const bool order = fault.kind == FaultKind::kOrder;
    unordered += order ? 1 : 0;
    EXPECT_TRUE(order || fault.kind == FaultKind::kUninitialised) << fault.what;
    EXPECT_NE(fault.what.find("kernel incrementer"), std::string::npos) << fault.what;
  }
  EXPECT_GT(unordered, 0);
}

// Both streams use initialised memory, so that the order alone is at stake.
std::function<void()> two_streams(bool event, bool first_writes, bool second_writes) {
  return [=] {
    TestStream first, second;
    TestFloats x(first, 8), a(first, 8), b(second, 8);
    fill_in(first, x, 8, 1);
    cudaDeviceSynchronize();
    TestEvent between, end;
    first_writes ? fill_in(first, x, 8, 2) : increment_in(first, a, x, 8);
    if (event) {
      cudaEventRecord(between, first);
      cudaStreamWaitEvent(second, between);
    }
    second_writes ? fill_in(second, x, 8, 3) : increment_in(second, b, x, 8);
    cudaEventRecord(end, second);
    cudaStreamWaitEvent(first, end);
    cudaStreamSynchronize(first);
  };
}

TEST(EmulatorOrder, NeedsAnEventWhereOneWrites) {
  for (const bool first : {false, true}) {
    for (const bool second : {false, true}) {
      SCOPED_TRACE(testing::Message() << first << second);
      expect_clean(two_streams(true, first, second));
      if (first || second) {
        expect_found(FaultKind::kOrder, {"with no event or synchronisation between", "stream"},
                     two_streams(false, first, second));
      } else {
        expect_clean(two_streams(false, first, second));
      }
    }
  }
}

TEST(EmulatorOrder, TheHostOrdersWhatItWaitedFor) {
  for (const int way : {0, 1, 2, 3}) {
    expect_clean([=] {
      TestStream first, second;
      TestFloats x(first, 8), y(second, 8);
      TestEvent done;
      fill_in(first, x, 8, 1);
      cudaEventRecord(done, first);
      if (way == 0) cudaStreamSynchronize(first);
      if (way == 1) cudaEventSynchronize(done);
      while (way == 2 && cudaEventQuery(done) == cudaErrorNotReady) {
      }
      while (way == 3 && cudaStreamQuery(first) == cudaErrorNotReady) {
      }
      increment_in(second, y, x, 8);
      cudaStreamSynchronize(second);
    });
  }
}

TEST(EmulatorOrder, EventsHoldWhatTheirStreamWaitedFor) {
  expect_clean([] {
    TestStream a, b, c;
    TestFloats x(a, 8), y(c, 8);
    TestEvent one, two, three;
    fill_in(a, x, 8, 1);
    cudaEventRecord(one, a);
    cudaStreamWaitEvent(b, one);
    cudaEventRecord(two, b);  // nothing else on b
    cudaStreamWaitEvent(c, two);
    increment_in(c, y, x, 8);
    cudaEventRecord(three, c);
    cudaStreamWaitEvent(a, three);
  });
}

TEST(EmulatorOrder, AnEventHoldsWhatCameBeforeItsLatestRecord) {
  const auto program = [](bool record_again) {
    return [=] {
      TestStream first, second;
      TestFloats x(first, 8), y(second, 8);
      fill_in(first, x, 8, 1);
      cudaDeviceSynchronize();
      TestEvent event, end;
      cudaEventRecord(event, first);
      fill_in(first, x, 8, 2);
      if (record_again) cudaEventRecord(event, first);
      cudaStreamWaitEvent(second, event);
      cudaEventRecord(event, first);  // too late for the wait
      increment_in(second, y, x, 8);
      cudaEventRecord(end, second);
      cudaStreamWaitEvent(first, end);
      cudaStreamSynchronize(second);
    };
  };
  expect_clean(program(true));
  expect_found(FaultKind::kOrder, {"kernel filler", "kernel incrementer"}, program(false));
}

TEST(EmulatorOrder, FindsAFreeThatOthersStillUse) {
  const auto program = [](bool event) {
    return [=] {
      TestStream owner, user;
      TestFloats y(user, 8);
      TestEvent used;
      {
        TestFloats x(owner, 8);
        fill_in(owner, x, 8, 1);
        cudaStreamSynchronize(owner);
        increment_in(user, y, x, 8);
        if (event) {
          cudaEventRecord(used, user);
          cudaStreamWaitEvent(owner, used);
        }
      }
      cudaDeviceSynchronize();
    };
  };
  expect_clean(program(true));
  int freed_first = 0, used_first = 0;
  for (std::uint64_t seed = 1; seed <= kRuntimeSeeds; ++seed) {
    emulator::configure({.seed = seed});
    program(false)();
    const FaultReport fault = emulator::take_fault();
    ASSERT_TRUE(fault.found) << seed;
    freed_first += fault.kind == FaultKind::kUseAfterFree ? 1 : 0;
    used_first += fault.kind == FaultKind::kOrder ? 1 : 0;
  }
  EXPECT_GT(freed_first, 0);
  EXPECT_GT(used_first, 0);
  EXPECT_EQ(freed_first + used_first, static_cast<int>(kRuntimeSeeds));
}

TEST(EmulatorOrder, FindsUseBeforeTheAllocationOfAnotherStream) {
  expect_found(FaultKind::kOrder, {"alloc"}, [] {
    TestStream owner, user;
    TestFloats x(owner, 8);
    fill_in(user, x, 8, 1);
    cudaStreamSynchronize(user);
  });
}

TEST(EmulatorOrder, TheDefaultStreamOrdersBlockingStreamsOnly) {
  const auto program = [](unsigned flags) {
    return [=] {
      cudaStream_t stream = nullptr;
      cudaStreamCreateWithFlags(&stream, flags);
      float* x = nullptr;
      cudaMalloc(&x, 32);
      fill_in(stream, Global<float>(x), 8, 1);
      cudaMemset(x, 0, 32);  // on the default stream
      cudaDeviceSynchronize();
      cudaFree(x);
      cudaStreamDestroy(stream);
    };
  };
  expect_clean(program(cudaStreamDefault));
  expect_found(FaultKind::kOrder, {"with no event"}, program(cudaStreamNonBlocking));
}

TEST(EmulatorOrder, PinnedCopiesRunLater) {
  expect_clean([] {
    TestStream stream;
    TestFloats x(stream, 4);
    float* pinned = nullptr;
    cudaMallocHost(&pinned, 16);
    for (int i = 0; i < 4; ++i) pinned[i] = 1;
    cudaMemcpyAsync(x.get(), pinned, 16, cudaMemcpyHostToDevice, stream);
    pinned[0] = 2;  // too early
    cudaStreamSynchronize(stream);
    EXPECT_EQ(download(stream, x.get(), 4)[0], 2);
    cudaMemcpyAsync(pinned, x.get(), 16, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    EXPECT_EQ(pinned[3], 1);
    cudaFreeHost(pinned);
  });
}

// ---- Events as clocks --------------------------------------------------------------------------

TEST(EmulatorEvents, MeasureTime) {
  expect_clean([] {
    TestStream stream;
    TestEvent start(cudaEventDefault), end(cudaEventDefault);
    TestFloats x(stream, 64);
    cudaEventRecord(start, stream);
    fill_in(stream, x, 64, 1);
    cudaEventRecord(end, stream);
    float milliseconds = -1;
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
    cudaEventSynchronize(end);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
    EXPECT_GT(milliseconds, 0);
  });
}

TEST(EmulatorEvents, NeedTimingToMeasure) {
  expect_found(FaultKind::kApi, {"cudaEventElapsedTime", "without timing"}, [] {
    TestStream stream;
    TestEvent start, end;
    cudaEventRecord(start, stream);
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float milliseconds = -1;
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
  });
}

TEST(EmulatorEvents, NeverRecordedIsDone) {
  expect_clean([] {
    TestStream stream;
    TestEvent event;
    EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
    EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(stream, event), cudaSuccess);
  });
}

// ---- Planted faults ----------------------------------------------------------------------------

// Whether some seed finds a fault, or a wrong result.
bool caught(const char* id, const std::function<bool()>& is_right) {
  bool result = false;
  for (std::uint64_t seed = 1; seed <= kRuntimeSeeds && !result; ++seed) {
    emulator::configure({.seed = seed});
    emulator::plant({id, ""});
    const bool right = is_right();
    result = emulator::take_fault().found || !right;
  }
  emulator::plant({});
  return result;
}

void expect_caught(const char* id, const std::function<bool()>& is_right) {
  EXPECT_FALSE(caught("", is_right));
  EXPECT_TRUE(caught(id, is_right)) << id;
}

TEST(EmulatorSabotage, OfStreams) {
  for (const char* id : {"event_on_wrong_stream", "stream_wait_ignored"}) {
    expect_caught(id, [] {
      two_streams(true, true, true)();
      return true;
    });
  }
}

TEST(EmulatorSabotage, OfMemory) {
  expect_caught("memset_short", [] {
    TestStream stream;
    TestFloats x(stream, 8);
    cudaMemsetAsync(x.get(), 0, 32, stream);
    return download(stream, x.get(), 8)[7] == 0;
  });
  expect_caught("copy_before_post", [] {
    TestStream stream;
    TestFloats x(stream, 8), y(stream, 8);
    fill_in(stream, x, 8, 1);
    cudaStreamSynchronize(stream);
    fill_in(stream, x, 8, 2);
    cudaMemcpyAsync(y.get(), x.get(), 32, cudaMemcpyDeviceToDevice, stream);
    return download(stream, y.get(), 8)[7] == 2;
  });
  expect_caught("free_early", [] {
    TestStream stream;
    {
      TestFloats x(stream, 8);
      cudaStreamSynchronize(stream);
      fill_in(stream, x, 8, 2);
    }
    return cudaStreamSynchronize(stream) == cudaSuccess;
  });
}

TEST(EmulatorSabotage, OnlyInKernelsOfThatName) {
  emulator::configure({});
  emulator::plant({"last_block_missing", "fill"});
  nvtxRangePushA("filler");
  EXPECT_TRUE(emulator::sabotaged("last_block_missing"));
  EXPECT_FALSE(emulator::sabotaged("last_warp_missing"));
  nvtxRangePop();
  EXPECT_FALSE(emulator::sabotaged("last_block_missing"));
  EXPECT_THROW(emulator::plant({"no_such_thing", ""}), emulator::Fault);
  emulator::plant({});
}

}  // namespace
}  // namespace sp::emulated
