// Prints a problem or result file as JSON, for tests that compare it with what another program
// wrote. Exit code 2 and one line on stderr when it is refused.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "harness/results/problem_file.hpp"
#include "harness/results/result_file.hpp"
#include "reference/problem/error.hpp"

namespace {

nlohmann::ordered_json describe(const sp::HostTensor& tensor) {
  if (tensor.absent()) return nullptr;
  nlohmann::ordered_json values = nlohmann::ordered_json::array();
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    if (std::isfinite(tensor.at(i))) values.push_back(tensor.at(i));
    if (!std::isfinite(tensor.at(i))) values.push_back(fmt::format("{}", tensor.at(i)));
  }
  return {{"dtype", sp::name_of(tensor.dtype())}, {"shape", tensor.shape()}, {"values", values}};
}

nlohmann::ordered_json problem_json(const std::string& path) {
  const auto [problem, inputs] = sp::read_problem(path);
  return {{"causal", problem.mask.causal},
          {"window", problem.mask.window},
          {"segment_ids", problem.mask.segment_ids},
          {"dtype", sp::name_of(problem.dtype)},
          {"scale", problem.scale},
          {"projected", problem.projected},
          {"module", problem.module ? std::string(sp::name_of(*problem.module)) : ""},
          {"epsilon", problem.epsilon},
          {"layers", problem.layers},
          {"key_heads", problem.shape.G},
          {"q", describe(inputs.q)},
          {"k", describe(inputs.k)},
          {"v", describe(inputs.v)},
          {"d_out", describe(inputs.d_out)},
          {"projection_k", describe(inputs.projection_k)},
          {"projection_v", describe(inputs.projection_v)},
          {"log_decay", describe(inputs.log_decay)},
          {"gamma", describe(inputs.gamma)},
          {"beta", describe(inputs.beta)}};
}

nlohmann::ordered_json result_json(const std::string& path) {
  const auto [outputs, info] = sp::read_result(path);
  return {{"algorithm", info.algorithm},
          {"backend", info.backend},
          {"ranks", info.ranks},
          {"bytes_sent_per_rank", info.bytes_sent_per_rank},
          {"messages_per_rank", info.messages_per_rank},
          {"out", describe(outputs.out)},
          {"lse", describe(outputs.lse)},
          {"d_q", describe(outputs.d_q)},
          {"d_k", describe(outputs.d_k)},
          {"d_v", describe(outputs.d_v)},
          {"d_log_decay", describe(outputs.d_log_decay)},
          {"d_gamma", describe(outputs.d_gamma)},
          {"d_beta", describe(outputs.d_beta)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: {} problem|result FILE\n", argv[0]);
    return 2;
  }
  try {
    const bool result = std::strcmp(argv[1], "result") == 0;
    fmt::print("{}\n", (result ? result_json(argv[2]) : problem_json(argv[2])).dump());
    return 0;
  } catch (const sp::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return error.kind() == sp::ErrorKind::kUsage ? 2 : 3;
  }
}
