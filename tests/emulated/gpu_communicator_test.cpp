// The communicators of GPUs keep the contract of communicator.hpp: over the emulator's NCCL, a device
// for every rank, and by copies, on one device, on two and on three.
// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated/gpu_communicators.hpp"

namespace sp::test {
namespace {

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const int devices : {0, 1, 2, 3})
    for (const int ranks : {1, 2, 3, 4, 8})
      if (ranks >= devices) all.push_back({devices, ranks});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Ranks, GpuCommunicators, testing::ValuesIn(settings()), name_of);

std::int64_t uneven(int rank) { return (rank * 5) % 4; }  // 0, 1, 2, 3, 0, ...

TEST_P(GpuCommunicators, ExchangesMoveEverySize) {
  run([](Rank& r) {
    for (int step = 0; step < 3; ++step) {
      const std::int64_t sent = (r.comm.rank() + step) % 3, received = (r.previous() + step) % 3;
      const Tensor to = r.blank(received), back = r.blank(1);
      r.comm
          .exchange({{r.next(), r.written(sent, r.comm.rank(), step), {"k", step}},
                     {r.previous(), r.written(1, r.comm.rank(), 7), {"back", step}}},
                    {{r.previous(), to, {"k", step}}, {r.next(), back, {"back", step}}})
          .wait();
      EXPECT_EQ(r.read(to), Rank::values(received, r.previous(), step));
      EXPECT_EQ(r.read(back), Rank::values(1, r.next(), 7));
    }
  });
}

TEST_P(GpuCommunicators, GathersEqualAndUnevenParts) {
  run([](Rank& r) {
    const int P = r.comm.size(), me = r.comm.rank();
    const Tensor whole = r.blank(2 * P);
    std::vector<Tensor> adjacent, apart;
    for (int p = 0; p < P; ++p) {
      adjacent.push_back(whole.rows(2 * p, 2 * p + 2));
      apart.push_back(r.blank(uneven(p)));
    }
    r.comm.all_gather(r.written(2, me), adjacent, {"k", 0}).wait();
    r.comm.all_gather(r.written(uneven(me), me), apart, {"v", 0}).wait();
    for (int p = 0; p < P; ++p) {
      EXPECT_EQ(r.read(adjacent[static_cast<std::size_t>(p)]), Rank::values(2, p));
      EXPECT_EQ(r.read(apart[static_cast<std::size_t>(p)]), Rank::values(uneven(p), p));
    }
    r.comm.all_gather(adjacent[static_cast<std::size_t>(me)], adjacent, {"in place", 0}).wait();
    EXPECT_EQ(r.read(adjacent.back()), Rank::values(2, P - 1));
  });
}

TEST_P(GpuCommunicators, SumsEqualAndUnevenParts) {
  run([](Rank& r) {
    const int P = r.comm.size(), me = r.comm.rank();
    const auto sum_of = [&](std::int64_t rows, int step) {
      Floats sum(static_cast<std::size_t>(2 * rows));
      for (int p = 0; p < P; ++p) {
        const Floats more = Rank::values(rows, p, step);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
      }
      return sum;
    };
    const Tensor whole = r.blank(P), sum = r.blank(1);
    std::vector<Tensor> adjacent, apart;
    for (int p = 0; p < P; ++p) {
      adjacent.push_back(whole.rows(p, p + 1));
      r.memory.upload(adjacent.back(), Rank::values(1, me, p).data());
      apart.push_back(r.written(uneven(p), me, p));
    }
    r.comm.reduce_scatter(adjacent, sum, {"d_k", 0}).wait();
    EXPECT_EQ(r.read(sum), sum_of(1, me));
    const Tensor uneven_sum = r.blank(uneven(me));
    r.comm.reduce_scatter(apart, uneven_sum, {"d_v", 0}).wait();
    EXPECT_EQ(r.read(uneven_sum), sum_of(uneven(me), me));
    r.comm.reduce_scatter(apart, apart[static_cast<std::size_t>(me)], {"in place", 0}).wait();
    EXPECT_EQ(r.read(apart[static_cast<std::size_t>(me)]), sum_of(uneven(me), me));
    const Tensor all = r.written(3, me);
    r.comm.all_reduce(all, {"all", 0}).wait();
    EXPECT_EQ(r.read(all), sum_of(3, 0));
    r.comm.all_reduce(r.blank(0), {"nothing", 0}).wait();
  });
}

TEST_P(GpuCommunicators, DoublesAreSummedAsDoubles) {
  run([](Rank& r) {
    const Tensor x = r.memory.allocate(DType::kF64, {1, 1, 1, 1}, "x");
    const double mine = 1 + 0x1p-40;
    r.memory.upload(x, &mine);
    r.comm.all_reduce(x, {"x", 0}).wait();
    double sum = 0;
    r.memory.download(&sum, x);
    EXPECT_EQ(sum, r.comm.size() * mine);
  });
}

TEST_P(GpuCommunicators, AllToAllAndBroadcastDeliver) {
  run([](Rank& r) {
    const int P = r.comm.size(), me = r.comm.rank();
    const auto rows = [](int from, int to) { return std::int64_t{(from + 2 * to) % 3}; };
    std::vector<Tensor> sends, receives;
    for (int p = 0; p < P; ++p) {
      sends.push_back(r.written(rows(me, p), me, p));
      receives.push_back(r.blank(rows(p, me)));
    }
    r.comm.all_to_all(sends, receives, {"heads", 0}).wait();
    for (int p = 0; p < P; ++p) {
      EXPECT_EQ(r.read(receives[static_cast<std::size_t>(p)]), Rank::values(rows(p, me), p, me));
    }
    for (int root = 0; root < P; ++root) {
      const Tensor x = root == me ? r.written(2, me) : r.blank(2);
      r.comm.broadcast(x, root, {"x", root}).wait();
      EXPECT_EQ(r.read(x), Rank::values(2, root));
    }
  });
}

TEST_P(GpuCommunicators, SplitsAndGroupsAreChannelsOfTheirOwn) {
  run([](Rank& r) {
    const int me = r.comm.rank();
    Communicator& second = r.comm.channel("second");
    EXPECT_EQ(second.rank(), me);
    const auto half = r.comm.split(me % 2, -me);
    EXPECT_EQ(half->size(), (r.comm.size() + 1 - me % 2) / 2);
    // In flight together, waited for in the other order.
    const Tensor a = r.written(2, me), b = r.written(2, me), c = r.written(2, me);
    Pending x = r.comm.all_reduce(a, {"a", 0}), y = second.all_reduce(b, {"b", 0}),
            z = half->broadcast(c, 0, {"c", 0});
    z.wait();
    y.wait();
    x.wait();
    EXPECT_EQ(r.read(a), r.read(b));
    const int first = (r.comm.size() - 1 - me % 2) / 2 * 2 + me % 2;  // the highest of the colour
    EXPECT_EQ(r.read(c), Rank::values(2, first));
  });
}

TEST_P(GpuCommunicators, AMessageCarriesWhatTheBufferHeldAtThePost) {
  run([](Rank& r) {
    const Tensor mine = r.written(1, r.comm.rank()), theirs = r.blank(1);
    for (int step = 0; step < 5; ++step) {
      r.memory.upload(mine, Rank::values(1, r.comm.rank(), step).data());  // on the compute stream
      r.comm.exchange({{r.next(), mine, {"x", step}}}, {{r.previous(), theirs, {"x", step}}})
          .wait();
      EXPECT_EQ(r.read(theirs), Rank::values(1, r.previous(), step));
    }
  });
}

TEST_P(GpuCommunicators, EventsAreUsedAgain) {
  run([](Rank& r) {
    const Tensor x = r.written(1, 0);
    int after_some = 0;
    for (int step = 0; step < 80; ++step) {
      r.comm.all_reduce(x, {"x", step}).wait();
      r.gpu.synchronize();
      if (step == 5) after_some = emulator::live_objects(r.gpu.ordinal()).events;
    }
    // Other ranks share the device of copies, and are at other steps: one step has up to 4 P events.
    const int others = GetParam().local() ? 4 * r.comm.size() * r.comm.size() : 0;
    EXPECT_LE(emulator::live_objects(r.gpu.ordinal()).events, after_some + others);
  });
}

}  // namespace
}  // namespace sp::test
