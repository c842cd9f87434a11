// Several devices of one process: what orders them, and copies between their memories.
// SPDX-License-Identifier: Apache-2.0
#include <latch>
#include <memory>

#include "tests/emulated/nccl_ranks.hpp"
#include "tests/emulated/runtime_fixture.hpp"

namespace sp::emulated {
namespace {

constexpr std::size_t kBytes = 32;
constexpr int kCount = 8;

// Which other device may touch what a device's pool gave.
cudaError_t share_pool(int owner, int other, cudaMemAccessFlags flags) {
  cudaMemPool_t pool = nullptr;
  EXPECT_EQ(cudaDeviceGetDefaultMemPool(&pool, owner), cudaSuccess);
  const cudaMemAccessDesc access{{cudaMemLocationTypeDevice, other}, flags};
  return cudaMemPoolSetAccess(pool, &access, 1);
}

// A device with a stream, an event and memory that holds zeros. Whatever is asked of it makes it
// current.
class Side {
 public:
  explicit Side(int device) : device_(device) {
    use();
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaEventCreate(&event_), cudaSuccess);
    EXPECT_EQ(cudaMallocAsync(&x_, kBytes, stream_), cudaSuccess);
    fill(0);
    cudaStreamSynchronize(stream_);
  }
  ~Side() {
    use();
    cudaFreeAsync(x_, stream_);
    cudaEventDestroy(event_);
    cudaStreamDestroy(stream_);
    cudaDeviceSynchronize();
    cudaSetDevice(0);
  }
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;

  void use() const { cudaSetDevice(device_); }
  cudaStream_t stream() const { return stream_; }
  cudaEvent_t event() const { return event_; }
  float* x() const { return x_; }

  void fill(float value) const {
    use();
    fill_in(stream_, Global<float>(x_), kCount, value);
  }
  void record() const {
    use();
    EXPECT_EQ(cudaEventRecord(event_, stream_), cudaSuccess);
  }
  void wait_for(const Side& other) const {
    use();
    EXPECT_EQ(cudaStreamWaitEvent(stream_, other.event_), cudaSuccess);
  }
  // On this side's stream.
  cudaError_t copy(const Side& to, const Side& from) const {
    use();
    return cudaMemcpyAsync(to.x_, from.x_, kBytes, cudaMemcpyDeviceToDevice, stream_);
  }
  float last() const {
    use();
    return download(stream_, x_, kCount)[kCount - 1];
  }
  void synchronize() const {
    use();
    cudaStreamSynchronize(stream_);
  }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
  float* x_ = nullptr;
};

void share_all() {
  for (int owner = 0; owner < 3; ++owner)
    for (int other = 0; other < 3; ++other)
      EXPECT_EQ(share_pool(owner, other, cudaMemAccessFlagsProtReadWrite), cudaSuccess);
}

// On all devices that these programs use.
void expect_all_clean(const std::function<void()>& program) {
  expect_clean([&] {
    program();
    for (const int device : {1, 2}) EXPECT_EQ(emulator::live_objects(device).total(), 0);
  });
}

// A message, copied by the receiver's stream or by the sender's, whose sender goes on to write.
struct Message {
  bool ready = true;  // the copy waits for what the other side did before
  bool done = true;   // the other side waits for the copy
  bool by_sender = false;
};
std::function<void()> sent(const Message& message) {
  return [=] {
    share_all();
    const Side from(0), to(1);
    const Side& copies = message.by_sender ? from : to;
    const Side& other = message.by_sender ? to : from;
    from.fill(1);
    to.fill(5);
    other.record();
    if (message.ready) copies.wait_for(other);
    EXPECT_EQ(copies.copy(to, from), cudaSuccess);
    copies.record();
    if (message.done) other.wait_for(copies);
    if (message.by_sender) {
      to.fill(to.last() + 1);
    } else {
      from.fill(2);
    }
    const float arrived = to.last();
    if (message.ready && message.done) {
      EXPECT_EQ(arrived, message.by_sender ? 2 : 1);
    }
    from.synchronize();
  };
}

TEST(EmulatorPeers, CopiesBehindEventsArrive) {
  for (const bool by_sender : {false, true}) expect_all_clean(sent({.by_sender = by_sender}));
}

TEST(EmulatorPeers, ACopyThatDoesNotWaitForTheOtherDeviceIsFound) {
  for (const bool by_sender : {false, true}) {
    expect_found(FaultKind::kOrder,
                 {"copy of 32 bytes from device 0 to device 1", "with no event or synchronisation"},
                 sent({.ready = false, .by_sender = by_sender}));
  }
}

TEST(EmulatorPeers, ABufferThatIsUsedAgainBeforeItsCopyIsFound) {
  for (const bool by_sender : {false, true}) {
    expect_found(FaultKind::kOrder,
                 {"copy of 32 bytes from device 0 to device 1", "with no event or synchronisation"},
                 sent({.done = false, .by_sender = by_sender}));
  }
}

// The freed bytes are gone, or their copy is not ordered before: by the order of execution.
TEST(EmulatorPeers, ABufferThatIsFreedBeforeItsCopyIsFound) {
  const auto program = [](bool done) {
    return [=] {
      share_all();
      const Side to(1);
      {
        const Side from(0);
        from.record();
        to.wait_for(from);
        to.copy(to, from);
        to.record();
        if (done) from.wait_for(to);
        from.use();
      }
      to.synchronize();
    };
  };
  expect_all_clean(program(true));
  for (std::uint64_t seed = 1; seed <= kRuntimeSeeds; ++seed) {
    emulator::configure({.seed = seed});
    program(false)();
    const FaultReport fault = emulator::take_fault();
    ASSERT_TRUE(fault.found) << seed;
    EXPECT_TRUE(fault.kind == FaultKind::kOrder || fault.kind == FaultKind::kUseAfterFree)
        << fault.what;
    EXPECT_NE(fault.what.find("copy of 32 bytes from device 0"), std::string::npos) << fault.what;
  }
}

TEST(EmulatorPeers, CopiesOfTwoStreamsAreNotOrdered) {
  const auto program = [](bool both) {
    return [=] {
      share_all();
      const Side from(0), one(1), two(1);
      for (const Side* to : {&one, &two}) {
        EXPECT_EQ(to->copy(*to, from), cudaSuccess);
        to->record();
      }
      if (both) from.wait_for(one);
      from.wait_for(two);
      from.fill(1);
      from.synchronize();
      one.synchronize();
      two.synchronize();
    };
  };
  expect_all_clean(program(true));
  expect_found(FaultKind::kOrder, {"from device 0 to device 1"}, program(false));
}

// Device 2 learns of device 0 from device 1.
TEST(EmulatorPeers, EventsHoldWhatTheirStreamWaitedForElsewhere) {
  const auto program = [](bool by_way_of_1) {
    return [=] {
      share_all();
      const Side a(0), b(1), c(2);
      a.fill(3);
      a.record();
      if (by_way_of_1) b.wait_for(a);
      b.record();
      c.wait_for(b);
      c.copy(c, a);
      c.record();
      b.wait_for(c);
      b.record();
      a.wait_for(b);
      a.fill(4);
      const float arrived = c.last();
      if (by_way_of_1) {
        EXPECT_EQ(arrived, 3);
      }
      a.synchronize();
    };
  };
  expect_all_clean(program(true));
  expect_found(FaultKind::kOrder, {"from device 0 to device 2"}, program(false));
}

TEST(EmulatorPeers, TheHostOrdersWhatItWaitedForElsewhere) {
  for (const int way : {0, 1, 2}) {
    expect_all_clean([=] {
      share_all();
      const Side from(0), to(1);
      from.fill(1);
      from.record();
      if (way == 2) {
        to.wait_for(from);  // and the host waits for that
        to.synchronize();
      }
      to.use();
      if (way == 0) cudaEventSynchronize(from.event());
      while (way == 1 && cudaEventQuery(from.event()) == cudaErrorNotReady) {
      }
      EXPECT_EQ(to.copy(to, from), cudaSuccess);
      EXPECT_EQ(to.last(), 1);
      from.fill(2);
      from.synchronize();
    });
  }
}

// ---- Events ------------------------------------------------------------------------------------

TEST(EmulatorPeers, EventsAreRecordedOnTheirOwnDevice) {
  expect_found(FaultKind::kApi, {"cudaEventRecord: event of device 1 used where one of device 0"},
               [] {
                 const Side a(0), b(1);
                 a.use();
                 EXPECT_EQ(cudaEventRecord(b.event(), a.stream()), cudaErrorInvalidResourceHandle);
               });
}

TEST(EmulatorPeers, TimesAreOfOneDevice) {
  const auto program = [](bool one_device) {
    return [=] {
      const Side a(0), b(1), c(0);
      for (const Side* each : {&a, &b, &c}) {
        each->record();
        each->synchronize();
      }
      float milliseconds = -1;
      b.use();  // which is none of theirs
      EXPECT_EQ(cudaEventElapsedTime(&milliseconds, a.event(), (one_device ? c : b).event()),
                one_device ? cudaSuccess : cudaErrorInvalidResourceHandle);
    };
  };
  expect_all_clean(program(true));
  expect_found(FaultKind::kApi, {"cudaEventElapsedTime: event of device 1"}, program(false));
}

TEST(EmulatorPeers, AnyDeviceMayBeCurrentWhenAnEventIsDestroyed) {
  expect_all_clean([] {
    cudaEvent_t event = nullptr;
    cudaSetDevice(1);
    cudaEventCreate(&event);
    cudaSetDevice(0);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    EXPECT_EQ(emulator::live_objects(1).total(), 0);
  });
  expect_found(FaultKind::kApi, {"cudaStreamWaitEvent: no such event"}, [] {
    cudaEvent_t event = nullptr;
    cudaSetDevice(1);
    cudaEventCreate(&event);
    cudaEventDestroy(event);
    cudaSetDevice(0);
    EXPECT_EQ(cudaStreamWaitEvent(nullptr, event), cudaErrorInvalidResourceHandle);
  });
}

// ---- Who may -----------------------------------------------------------------------------------

TEST(EmulatorPeers, PoolsMustBeShared) {
  const auto program = [](bool shared) {
    return [=] {
      EXPECT_EQ(share_pool(0, 1, cudaMemAccessFlagsProtReadWrite), cudaSuccess);
      if (!shared) {
        EXPECT_EQ(share_pool(0, 1, cudaMemAccessFlagsProtNone), cudaSuccess);
      }
      const Side from(0), to(1);
      EXPECT_EQ(to.copy(to, from), shared ? cudaSuccess : cudaErrorInvalidValue);
      to.synchronize();
    };
  };
  expect_all_clean(program(true));
  expect_found(FaultKind::kApi,
               {"cudaMemcpyAsync: memory of the pool of device 0, to which cudaMemPoolSetAccess "
                "gave device 1 no access"},
               program(false));
}

TEST(EmulatorPeers, PlainMemoryIsEverybodys) {
  expect_all_clean([] {
    cudaSetDevice(0);
    float* x = nullptr;
    cudaMalloc(&x, kBytes);
    cudaMemset(x, 0, kBytes);
    cudaDeviceSynchronize();
    {
      const Side to(1);
      to.fill(1);
      EXPECT_EQ(cudaMemcpyAsync(to.x(), x, kBytes, cudaMemcpyDeviceToDevice, to.stream()),
                cudaSuccess);
      EXPECT_EQ(to.last(), 0);
    }
    cudaFree(x);
  });
}

TEST(EmulatorPeers, NotAllDevicesReachEachOther) {
  expect_all_clean([] {
    int can = -1;
    EXPECT_EQ(cudaDeviceCanAccessPeer(&can, 0, 1), cudaSuccess);
    EXPECT_EQ(can, 1);
    EXPECT_EQ(cudaDeviceCanAccessPeer(&can, 1, 1), cudaSuccess);
    EXPECT_EQ(can, 0);
  });
  expect_found(FaultKind::kApi, {"cudaMemPoolSetAccess: device 1 cannot access device 0"},
               [] {
                 int can = -1;
                 EXPECT_EQ(cudaDeviceCanAccessPeer(&can, 0, 1), cudaSuccess);
                 EXPECT_EQ(can, 0);
                 EXPECT_EQ(share_pool(0, 1, cudaMemAccessFlagsProtReadWrite),
                           cudaErrorInvalidDevice);
               },
               {.peers = false});
  expect_found(FaultKind::kApi, {"no device 64"}, [] {
    int can = -1;
    EXPECT_EQ(cudaDeviceCanAccessPeer(&can, 0, 64), cudaErrorInvalidDevice);
  });
  expect_found(FaultKind::kApi, {"keeps the access to its own pool"}, [] {
    EXPECT_EQ(share_pool(0, 0, cudaMemAccessFlagsProtNone), cudaErrorInvalidDevice);
  });
}

TEST(EmulatorPeers, TheDefaultStreamCopiesOnOneDevice) {
  expect_found(FaultKind::kApi, {"in the default stream is not modelled"}, [] {
    share_all();
    const Side from(0), to(1);
    EXPECT_EQ(cudaMemcpy(to.x(), from.x(), kBytes, cudaMemcpyDeviceToDevice),
              cudaErrorNotSupported);
  });
}

TEST(EmulatorPeers, AFaultStaysWithTheDeviceWhoseOperationRan) {
  emulator::configure({});
  {
    share_all();
    const Side from(0), to(1);
    EXPECT_EQ(cudaMemcpyAsync(to.x(), from.x() + 1, kBytes, cudaMemcpyDeviceToDevice, to.stream()),
              cudaSuccess);
    to.record();
    from.wait_for(to);  // for what never happens
    to.use();
    EXPECT_EQ(cudaStreamSynchronize(to.stream()), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(from.stream()), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  const FaultReport fault = emulator::take_fault();
  EXPECT_EQ(fault.kind, FaultKind::kOutOfBounds);
  EXPECT_NE(fault.what.find("device 1, out of bounds: copy of 32 bytes from device 0 to device 1"),
            std::string::npos)
      << fault.what;
}

TEST(EmulatorPeers, CopiesUnderWayAreLimited) {
  const auto program = [](bool waits) {
    return [=] {
      share_all();
      const Side from(0);
      std::vector<std::unique_ptr<Side>> all;
      for (int i = 0; i < 63; ++i) {
        all.push_back(std::make_unique<Side>(1));
        const cudaError_t error = all.back()->copy(*all.back(), from);
        EXPECT_EQ(error, i == 62 && !waits ? cudaErrorMemoryAllocation : cudaSuccess) << i;
        if (waits) all.back()->synchronize();
      }
      for (const auto& each : all) each->synchronize();
      from.use();  // the copies are done, so there is room for streams
      for (int i = 0; i < 60; ++i) {
        cudaStream_t stream = nullptr;
        EXPECT_EQ(cudaStreamCreate(&stream), cudaSuccess) << i;
      }
      while (!all.empty()) all.pop_back();
    };
  };
  expect_found(FaultKind::kResources, {"more than 63 streams, and copies that other devices run"},
               program(false));
  emulator::configure({});
  program(true)();
  EXPECT_FALSE(emulator::take_fault().found);
  emulator::configure({});
}

// ---- Deadlocks ---------------------------------------------------------------------------------

// A receive waits for a message whose send waits for an event behind the receive.
TEST(EmulatorPeers, ACircleOverTwoDevicesIsFound) {
  for (const bool circle : {false, true}) {
    emulator::configure({});
    std::latch recorded(1);
    cudaEvent_t event = nullptr;
    test::on_nccl_ranks(2, [&](const test::NcclRank& r) {
      float* x = r.put({1});
      if (r.rank == 0) {
        cudaEventCreate(&event);
        if (!circle) cudaEventRecord(event, r.stream);
        ncclRecv(x, 1, ncclFloat32, 1, r.comm, r.stream);
        if (circle) cudaEventRecord(event, r.stream);
        recorded.count_down();
      } else {
        recorded.wait();
        cudaStreamWaitEvent(r.stream, event);
        ncclSend(x, 1, ncclFloat32, 0, r.comm, r.stream);
      }
      EXPECT_EQ(cudaStreamSynchronize(r.stream), circle ? cudaErrorLaunchFailure : cudaSuccess);
    });
    const FaultReport fault = emulator::take_fault();
    EXPECT_EQ(fault.found, circle) << fault.what;
    if (!circle) continue;
    EXPECT_EQ(fault.kind, FaultKind::kDeadlock);
    for (const char* line :
         {"device 0, stream 1: ncclRecv", "device 1, stream 1: ncclSend of 1 f32 to rank 0",
          ", behind device 0"})
      EXPECT_NE(fault.what.find(line), std::string::npos) << fault.what;
  }
  emulator::configure({});
}

}  // namespace
}  // namespace sp::emulated
