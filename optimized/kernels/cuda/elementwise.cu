// Fill, copy and add: memory-bound maps from one element to another, over any strides.
//
// Axes that lie densely behind each other in both tensors are merged first, so that whole tensors
// and runs of tokens become one long row. Where rows allow it a thread moves 16 bytes of the narrower
// type at once; else one
// element. Two waves of blocks walk over all of them.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/vectors.cuh"

namespace sp::SP_GPU {
namespace {

// The elements of both tensors as axes, the last one innermost; axes in front of them have extent 1.
struct Axes {
  std::int64_t extent[4] = {1, 1, 1, 1};
  std::int64_t target[4] = {0, 0, 0, 1}, source[4] = {0, 0, 0, 1};  // strides

  Axes(const Tensor& to, const Tensor& from) {
    int last = 4;  // the axis filled last
    for (int axis = 3; axis >= 0; --axis) {
      const std::int64_t count = to.extent(axis);
      if (count == 1) continue;
      if (last < 4 && to.stride(axis) == extent[last] * target[last] &&
          from.stride(axis) == extent[last] * source[last]) {
        extent[last] *= count;
        continue;
      }
      --last;
      extent[last] = count;
      target[last] = to.stride(axis);
      source[last] = from.stride(axis);
    }
  }

  std::int64_t rows() const { return extent[0] * extent[1] * extent[2]; }

  template <int kElements, class T>
  static bool aligned(const T* data, const std::int64_t (&stride)[4]) {
    bool result = stride[3] == 1;
    for (int axis = 0; axis < 3; ++axis) {
      result = result && vector_aligned<kElements>(data, stride[axis]);
    }
    return result;
  }
};

// kElements of T, a multiple of what one access moves.
template <int kElements, class T>
__device__ void load(T (&to)[kElements], Global<const T> from) {
  constexpr int kStep = kElements < kVectorElements<T> ? kElements : kVectorElements<T>;
#pragma unroll
  for (int i = 0; i < kElements; i += kStep) {
    const auto loaded = load_vector<kStep>(from, i);
#pragma unroll
    for (int e = 0; e < kStep; ++e) to[i + e] = loaded.x[e];
  }
}

template <int kElements, class T>
__device__ void store(Global<T> to, const T (&from)[kElements]) {
  constexpr int kStep = kElements < kVectorElements<T> ? kElements : kVectorElements<T>;
#pragma unroll
  for (int i = 0; i < kElements; i += kStep) {
    Vector<T, kStep> stored;
#pragma unroll
    for (int e = 0; e < kStep; ++e) stored.x[e] = from[i + e];
    store_vector(to, i, stored);
  }
}

// What happens to one element: target = operation(target, source).
template <class T>
struct Fill {
  using Target = T;
  using Source = T;
  static constexpr bool kReadsTarget = false, kReadsSource = false;
  T value;
  __device__ T operator()(T, T) const { return value; }
};

template <class T, class S>
struct Copy {
  using Target = T;
  using Source = S;
  static constexpr bool kReadsTarget = false, kReadsSource = true;
  __device__ T operator()(T, S source) const {
    if constexpr (std::is_same_v<T, S>) {
      return source;
    } else {
      return from_float<T>(to_float(source));
    }
  }
};

template <class S>
struct Add {
  using Target = float;
  using Source = S;
  static constexpr bool kReadsTarget = true, kReadsSource = true;
  __device__ float operator()(float target, S source) const { return target + to_float(source); }
};

// A unit is kElements neighbours of a row, fewer at its end.
template <int kElements, class Operation>
__global__ void __launch_bounds__(kStrideThreads)
    map_elements(Axes axes, Global<typename Operation::Target> target,
                 Global<const typename Operation::Source> source, Operation operation) {
  using T = typename Operation::Target;
  using S = typename Operation::Source;
  const std::int64_t per_row = (axes.extent[3] + kElements - 1) / kElements;
  const std::int64_t units = axes.extent[0] * axes.extent[1] * axes.extent[2] * per_row;
  const std::int64_t step = std::int64_t{gridDim.x} * kStrideThreads;
  for (std::int64_t unit = std::int64_t{blockIdx.x} * kStrideThreads + thread_id(); unit < units;
       unit += step) {
    std::int64_t column = unit * kElements;
    Global<T> to = target;
    Global<const S> from = source;
    if (per_row < units) {  // more than one row
      std::int64_t row = unit / per_row;
      column -= row * per_row * kElements;
#pragma unroll
      for (int axis = 2; axis >= 0; --axis) {
        const std::int64_t index = axis == 0 ? row : row % axes.extent[axis];
        row = axis == 0 ? 0 : row / axes.extent[axis];
        to = to + index * axes.target[axis];
        from = from + index * axes.source[axis];
      }
    }
    to = to + column * axes.target[3];
    from = from + column * axes.source[3];
    if constexpr (kElements > 1) {
      if (column + kElements <= axes.extent[3]) {
        T result[kElements];
        S added[kElements];
        if constexpr (Operation::kReadsTarget) load(result, Global<const T>(to));
        if constexpr (Operation::kReadsSource) load(added, from);
#pragma unroll
        for (int e = 0; e < kElements; ++e) result[e] = operation(result[e], added[e]);
        store(to, result);
        continue;
      }
    }
    for (int e = 0; e < kElements && column + e < axes.extent[3]; ++e) {
      T old{};
      S added{};
      if constexpr (Operation::kReadsTarget) old = to.load(e * axes.target[3]);
      if constexpr (Operation::kReadsSource) added = from.load(e * axes.source[3]);
      to.store(e * axes.target[3], operation(old, added));
    }
  }
}

template <class Operation>
void map(const Gpu& gpu, const char* name, const Tensor& target, const Tensor& source,
         Operation operation) {
  using T = typename Operation::Target;
  using S = typename Operation::Source;
  constexpr int kElements = 16 / static_cast<int>(std::min(sizeof(T), sizeof(S)));
  const Axes axes(target, source);
  const Global<T> to(target.as<T>());
  const Global<const S> from(source.as<S>());
  const bool vectors = Axes::aligned<kVectorElements<T>>(to.address(), axes.target) &&
                       Axes::aligned<kVectorElements<S>>(from.address(), axes.source);
  const std::int64_t per_row =
      vectors ? (axes.extent[3] + kElements - 1) / kElements : axes.extent[3];
  launch(gpu, name, vectors ? map_elements<kElements, Operation> : map_elements<1, Operation>,
         grid_stride(gpu, axes.rows() * per_row), axes, to, from, operation);
}

}  // namespace

void CudaKernels::do_fill(const Tensor& target, double value) {
  visit_dtype(target.dtype(), [&]<class T>() {
    using Bits =
        std::conditional_t<sizeof(T) == 2, std::uint16_t,
                           std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
    map(gpu_, "fill", target, target, Fill<Bits>{__builtin_bit_cast(Bits, narrow<T>(value))});
  });
}

void CudaKernels::do_copy(const Tensor& target, const Tensor& source) {
  const DType to = target.dtype(), from = source.dtype();
  if (to == from) {  // bits; also of types without arithmetic here
    switch (size_of(to)) {
      case 2:
        return map(gpu_, "copy", target, source, Copy<std::uint16_t, std::uint16_t>{});
      case 4:
        return map(gpu_, "copy", target, source, Copy<std::uint32_t, std::uint32_t>{});
      default:
        return map(gpu_, "copy", target, source, Copy<std::uint64_t, std::uint64_t>{});
    }
  }
  visit_storage(to, [&]<class T>() {
    visit_storage(from, [&]<class S>() {
      if constexpr (!std::is_same_v<T, S>) map(gpu_, "copy", target, source, Copy<T, S>{});
    });
  });
}

void CudaKernels::do_add(const Tensor& target, const Tensor& source) {
  SP_CHECK(target.dtype() == DType::kF32, "GPU kernels accumulate in f32");
  visit_storage(source.dtype(), [&]<class S>() { map(gpu_, "add", target, source, Add<S>{}); });
}

}  // namespace sp::SP_GPU
