// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/bundle.hpp"

namespace sp {

std::int64_t row_bytes(const Fields& fields, std::int64_t batch) {
  std::int64_t bytes = 0;
  for (const Field& field : fields) {
    bytes += batch * field.heads * field.size * static_cast<std::int64_t>(size_of(field.dtype));
  }
  return bytes;
}

Bundle Bundle::rows(std::int64_t begin, std::int64_t end) const {
  Bundle part;
  for (const Tensor& tensor : tensors) part.tensors.push_back(tensor.rows(begin, end));
  return part;
}

Bundle allocate_bundle(Context& ctx, const Fields& fields, std::int64_t batch, std::int64_t rows) {
  Bundle bundle;
  for (const Field& field : fields) {
    bundle.tensors.push_back(
        ctx.memory.allocate(field.dtype, {rows, batch, field.heads, field.size}, field.name));
  }
  return bundle;
}

void append(std::vector<Message>& messages, int peer, const Fields& fields, const Bundle& bundle,
            int step) {
  for (std::size_t i = 0; i < bundle.tensors.size(); ++i) {
    if (bundle.tensors[i].extent(0) == 0) continue;
    messages.push_back({peer, bundle.tensors[i], {fields[i].name, step}});
  }
}

Cargo forward_cargo(const Problem& problem) {
  const Shape& s = problem.shape;
  const DType acc = accumulator_of(problem.dtype);
  return {{{"q", problem.dtype, s.H, s.D}},
          {{"out", problem.dtype, s.H, s.E}, {"lse", acc, s.H, 1}}};
}

Cargo backward_cargo(const Problem& problem) {
  const Shape& s = problem.shape;
  const DType acc = accumulator_of(problem.dtype);
  return {{{"q", problem.dtype, s.H, s.D},
           {"d_out", problem.dtype, s.H, s.E},
           {"lse", acc, s.H, 1},
           {"delta", acc, s.H, 1}},
          {{"d_q", acc, s.H, s.D}}};
}

}  // namespace sp
