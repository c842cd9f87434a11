// Transport of test values to a GPU and back.
// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated/gpu_fixture.hpp"

#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#ifdef SP_EMULATOR
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::test {
namespace {

constexpr std::byte kPoison{0xff};  // NaN in every type

// Elements from the first to the last, both included.
std::int64_t span_of(const Tensor& tensor) {
  if (tensor.elements() == 0) return 0;
  std::int64_t span = 1;
  for (int axis = 0; axis < 4; ++axis) span += (tensor.extent(axis) - 1) * tensor.stride(axis);
  return span;
}

// The same bytes as one contiguous row.
Tensor flattened(const Tensor& tensor) {
  const std::int64_t span = span_of(tensor);
  const auto bytes = span * static_cast<std::int64_t>(size_of(tensor.dtype()));
  return {std::make_shared<Storage>(Storage{tensor.data(), bytes, tensor.name()}),
          tensor.dtype(),
          {span, 1, 1, 1}};
}

// Calls f(offset from the first element, flat index) in row-major order.
template <class F>
void for_each_offset(const Tensor& tensor, F f) {
  std::size_t flat = 0;
  for (std::int64_t i = 0; i < tensor.extent(0); ++i) {
    for (std::int64_t b = 0; b < tensor.extent(1); ++b) {
      for (std::int64_t h = 0; h < tensor.extent(2); ++h) {
        for (std::int64_t d = 0; d < tensor.extent(3); ++d) {
          f(i * tensor.stride(0) + b * tensor.stride(1) + h * tensor.stride(2) +
                d * tensor.stride(3),
            flat++);
        }
      }
    }
  }
}

// How often the tests have begun.
int iterations() {
  class Count : public testing::EmptyTestEventListener {
   public:
    void OnTestIterationStart(const testing::UnitTest&, int iteration) override { now = iteration; }
    int now = 0;
  };
  static Count* const count = [] {
    auto* made = new Count;  // GoogleTest's from here on
    testing::UnitTest::GetInstance()->listeners().Append(made);
    return made;
  }();
  return count->now;
}

}  // namespace

GpuFixture::~GpuFixture() {
#ifdef SP_EMULATOR
  const emulator::FaultReport fault = emulator::take_fault();
  EXPECT_FALSE(fault.found) << fault.what;
#endif
  try {
    for (const auto& [whole, window] : windows_) expect_untouched_around(whole, window);
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
  expect_bits_of_last_time();
}

// A test may have several fixtures, one after the other.
void GpuFixture::expect_bits_of_last_time() const {
  struct Record {
    int iteration = 0;
    std::size_t next = 0;
    std::vector<std::vector<std::size_t>> digests;  // by fixture
  };
  static std::map<std::string, Record> records;
  const testing::UnitTest& program = *testing::UnitTest::GetInstance();
  const testing::TestInfo* test = program.current_test_info();
  if (test == nullptr) return;
  Record& record = records[std::string(test->test_suite_name()) + "." + test->name()];
  const int iteration = iterations();
  if (record.iteration != iteration) record.iteration = iteration, record.next = 0;
  if (record.next == record.digests.size()) record.digests.push_back(taken_);
  EXPECT_EQ(record.digests[record.next++], taken_) << "the second time gives other bits";
}

Tensor GpuFixture::poisoned(Tensor::Extents shape, DType dtype, Placement placement) {
  if (placement == Placement::kDense) return memory_.allocate(dtype, shape, "test");
  Tensor::Extents larger = shape;
  for (std::int64_t& extent : larger) extent += 3;
  const Tensor whole = memory_.allocate(dtype, larger, "test window");
  upload_span(whole, Bytes(static_cast<std::size_t>(whole.bytes()), kPoison));
  Tensor window = whole;
  for (int axis = 0; axis < 4; ++axis) {
    window = window.slice(axis, 1, 1 + shape[static_cast<std::size_t>(axis)]);
  }
  windows_.emplace_back(whole, window);
  return window;
}

Tensor GpuFixture::put(const Values& values, DType dtype, Placement placement) {
  const Tensor tensor = poisoned(values.shape, dtype, placement);
  if (tensor.elements() == 0) return tensor;
  Bytes bytes(static_cast<std::size_t>(span_of(tensor)) * size_of(dtype), kPoison);
  visit_dtype(dtype, [&]<class T>() {
    for_each_offset(tensor, [&](std::int64_t offset, std::size_t flat) {
      const T element = narrow<T>(values.data[flat]);
      std::memcpy(bytes.data() + static_cast<std::size_t>(offset) * sizeof(T), &element, sizeof(T));
    });
  });
  upload_span(tensor, bytes);
  return tensor;
}

Tensor GpuFixture::put_ids(std::int64_t B, std::int64_t N, const std::vector<std::int32_t>& ids) {
  const Tensor tensor = memory_.allocate(DType::kI32, {B, N, 1, 1}, "segments");
  memory_.upload(tensor, ids.data());
  return tensor;
}

Values GpuFixture::take(const Tensor& tensor) {
  Values values(tensor.shape());
  const Bytes bytes = download_span(tensor);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  taken_.push_back(std::hash<std::string_view>()(text));
  visit_dtype(tensor.dtype(), [&]<class T>() {
    for_each_offset(tensor, [&](std::int64_t offset, std::size_t flat) {
      T element;
      std::memcpy(&element, bytes.data() + static_cast<std::size_t>(offset) * sizeof(T), sizeof(T));
      values.data[flat] = static_cast<double>(widen(element));
    });
  });
  return values;
}

Tensor GpuFixture::twin(const Tensor& host, Placement placement) {
  return host.defined() ? put(test::take(host), host.dtype(), placement) : Tensor();
}

GpuFixture::Bytes GpuFixture::download_span(const Tensor& tensor) {
  const Tensor flat = flattened(tensor);
  Bytes bytes(static_cast<std::size_t>(flat.bytes()));
  memory_.download(bytes.data(), flat);
  return bytes;
}

void GpuFixture::upload_span(const Tensor& tensor, const Bytes& bytes) {
  memory_.upload(flattened(tensor), bytes.data());
}

void GpuFixture::expect_untouched_around(const Tensor& whole, const Tensor& window) {
  Bytes bytes = download_span(whole);
  const std::size_t element = size_of(whole.dtype());
  const auto begin = static_cast<std::size_t>(window.data() - whole.data());
  for_each_offset(window, [&](std::int64_t offset, std::size_t) {
    const std::size_t at = begin + static_cast<std::size_t>(offset) * element;
    for (std::size_t i = 0; i < element; ++i) bytes[at + i] = kPoison;
  });
  EXPECT_TRUE(bytes == Bytes(bytes.size(), kPoison)) << "written outside of " << window.name();
}

}  // namespace sp::test
