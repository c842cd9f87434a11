// Sums of states and the normaliser on the GPU against the CPU's kernels, whose own tests have the
// definitions.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tests/emulated/gpu_fixture.hpp"

namespace sp::test {
namespace {

constexpr DType kF32 = DType::kF32;

class EmulatedStates : public KernelsTest {
 protected:
  // Accumulates the same spans on both machines; the states of the spans get W + `more` columns.
  void accumulate(const Tensor::Extents& shape, std::vector<sp::Run> tokens, LinearTerms terms,
                  Placement placement, std::int64_t more = 0) {
    const Values before = random(shape, kF32);
    std::vector<StateSpan> host, device;
    for (const sp::Run& run : tokens) {
      Tensor::Extents wider = shape;
      wider[3] += more;
      Values state = random(wider, kF32);
      for (std::size_t i = 0; i < state.data.size(); ++i) {
        const bool total = static_cast<std::int64_t>(i) % wider[3] >= shape[3];
        if (total) state.data[i] = -std::fabs(state.data[i]);
      }
      const Tensor on_host = put(state, kF32), on_device = gpu_.put(state, kF32, placement);
      const auto decay = [&](const Tensor& tensor) {
        return more > 0 ? tensor.slice(3, shape[3], shape[3] + 1) : Tensor();
      };
      host.push_back({on_host, run, decay(on_host)});
      device.push_back({on_device, run, decay(on_device)});
    }
    const Tensor expected = put(before, kF32), actual = gpu_.put(before, kF32, placement);
    kernels_.linear_accumulate(expected, host, terms);
    terms.log_decay = gpu_.twin(terms.log_decay, placement);
    terms.segments = gpu_.twin(terms.segments);
    gpu_.kernels().linear_accumulate(actual, device, terms);
    // Both round once per span; exponentials of double may differ in their last bit.
    const double limit = 4 * static_cast<double>(tokens.size()) * unit_roundoff(kF32);
    expect_within(gpu_.take(actual), take(expected), limit, "sum");
  }
  GpuFixture gpu_;
};

TEST_F(EmulatedStates, SpansDecayWhatCameBefore) {
  for (const Placement placement : {Placement::kDense, Placement::kWindow}) {
    for (const Tensor::Extents& shape :
         {Tensor::Extents{3, 1, 2, 4}, {70, 2, 3, 65}, {1, 1, 1, 1}, {5, 0, 2, 3}, {5, 2, 2, 0}}) {
      Values decay({1, 1, shape[2], 1});
      for (double& x : decay.data) x = -std::fabs(random({1, 1, 1, 1}, kF32).data[0]);
      const std::vector<sp::Run> tokens{{10, 1, 3}, {13, 1, 0}, {13, 1, 5}};
      accumulate(shape, tokens, {.module = Module::kBasic}, placement);
      accumulate(shape, tokens, {.module = Module::kBased}, placement);
      accumulate(shape, tokens, {.module = Module::kRetention, .log_decay = put(decay, kF32)},
                 placement);
      accumulate(shape, tokens, {.module = Module::kGla}, placement, 1);
    }
  }
}

TEST_F(EmulatedStates, SpansInWhichADocumentBeginsForgetWhatCameBefore) {
  std::vector<std::int32_t> ids(2000, 7);  // sequence 0 changes its id at 5, 6 and 999
  ids[5] = 8;
  ids[999] = 3;
  const LinearTerms terms{.module = Module::kBasic, .segments = put_ids(2, 1000, ids)};
  for (const sp::Run& tokens : std::vector<sp::Run>{{1, 1, 4},
                                                    {1, 1, 5},
                                                    {5, 1, 2},
                                                    {6, 1, 4},
                                                    {7, 1, 4},
                                                    {0, 1, 2},
                                                    {5, 1, 0},
                                                    {7, 1, 992},
                                                    {7, 1, 993}}) {
    accumulate({3, 2, 1, 2}, {tokens}, terms, Placement::kDense);
  }
}

TEST_F(EmulatedStates, OutputIsTheQuotient) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::int64_t E : {0, 1, 3, 64, 130}) {
      for (const std::int64_t more : {0, 1}) {
        Values sums = random({5, 2, 3, E + more}, kF32);
        for (std::int64_t i = 0; i < 30 && more > 0; ++i) {
          double& divisor = sums.at(i / 6, i / 3 % 2, i % 3, E);
          divisor = std::fabs(divisor) + 0.5;
          divisor = static_cast<float>(divisor);
        }
        const Tensor::Extents shape{5, 2, 3, E};
        const Tensor expected = poisoned(shape, dtype);
        const Tensor actual = gpu_.poisoned(shape, dtype, Placement::kWindow);
        kernels_.linear_output(expected, put(sums, kF32), 0.01);
        gpu_.kernels().linear_output(actual, gpu_.put(sums, kF32, Placement::kWindow), 0.01);
        expect_bitwise(gpu_.take(actual), take(expected), "out");
      }
    }
  }
}

}  // namespace
}  // namespace sp::test
