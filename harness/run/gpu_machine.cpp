// SPDX-License-Identifier: Apache-2.0
#include "harness/run/gpu_machine.hpp"

#include <vector>

#include "harness/mutants/host_window.hpp"
#include "harness/run/injected.hpp"
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/cuda_memory.hpp"
#include "optimized/kernels/cuda/timers.hpp"
#ifdef SP_EMULATOR
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::SP_GPU {
namespace {

#ifdef SP_EMULATOR
std::byte* see(const Tensor& tensor, std::int64_t bytes, bool writes) {
  check(cudaDeviceSynchronize(), "waiting for the GPU to look at its memory");
  return emulator::host_view(tensor.data(), bytes, writes);
}
#else
std::byte* see(const Tensor&, std::int64_t, bool) {
  throw Error(ErrorKind::kUsage,
              "faults that edit tensors need memory that the host can see: hunt them with "
              "--backend emulated, which runs the same kernels");
}
#endif

// Dense operations per multiprocessor and cycle, twice the multiply-adds: NVIDIA's architecture
// white papers and the throughput table of the CUDA programming guide.
double operations_per_cycle(const cudaDeviceProp& device, DType storage) {
  const bool large = device.minor == 0;  // data centre parts
  if (storage == DType::kF32) return device.major == 8 && large ? 128 : 256;
  switch (device.major) {
    case 8:
      return large ? 2048 : 1024;
    case 9:
      return 4096;
    default:
      return large ? 8192 : 1024;
  }
}

class GpuClock final : public DeviceClock {
 public:
  GpuClock(const Gpu& gpu, CommunicationMeter& meter) : gpu_(gpu), meter_(meter) {}
  ~GpuClock() override { meter_.measure(false); }
  void start() override {
    meter_.measure(true);
    meter_.take();  // waits, and what came before does not count
    times_.assign(1, timers_.take());
    record(times_.front().first, gpu_.compute());
  }
  Pass stop() override {
    record(times_.front().second, gpu_.compute());
    const CommunicationMeter::Cost communication = meter_.take();
    return {timers_.seconds_of(times_), communication.exposed_s, communication.total_s};
  }
  Peak peak(DType storage) const override {
    int kilohertz = 0;
    check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, gpu_.ordinal()), "clock rate");
    const double clock_hz = 1e3 * kilohertz;
    return {operations_per_cycle(gpu_.properties(), storage) * clock_hz *
                gpu_.properties().multiProcessorCount,
            clock_hz};
  }

 private:
  const Gpu& gpu_;
  CommunicationMeter& meter_;
  Timers timers_;
  std::vector<Timers::Timer> times_;  // of the pass under way
};

class WindowForThisThread {
 public:
  WindowForThisThread() { host_window = see; }
  ~WindowForThisThread() { host_window = nullptr; }
  WindowForThisThread(const WindowForThisThread&) = delete;
  WindowForThisThread& operator=(const WindowForThisThread&) = delete;
};

}  // namespace

void refuse_without_gpu() {
  throw Error(ErrorKind::kEnvironment,
              "no CUDA device found: --backend emulated runs the same kernels on the CPU");
}

void check_rig(const Rig& rig) {
  if (!rig.checked && !rig.chaos && rig.fence == Fence::kOff) return;
  throw Error(ErrorKind::kUsage,
              "checked buffers, chaos and fences watch host memory: use the back-ends thread or "
              "mpi, or emulated without them, which checks every access and reorders all streams "
              "by itself");
}

void run_on_gpu(Gpu& gpu, Communicator& world, CommunicationMeter& meter, const Rig& rig,
                const std::function<void(Machine&)>& body) {
  check_rig(rig);
  const WindowForThisThread window;
  CudaMemory memory(gpu), spare(gpu);  // first: outlive every tensor
  CudaKernels cuda_kernels(gpu);
  Injected injected(rig, world, cuda_kernels, spare);
  GpuClock clock(gpu, meter);
  Machine machine{injected.comm(), injected.kernels(), memory, &clock};
  body(machine);
  gpu.synchronize();  // while everything that may fail is still there to report it
}

}  // namespace sp::SP_GPU
