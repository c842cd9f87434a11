// seqpar sensitivity: the smallest defects that the limits refuse.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/arguments.hpp"
#include "experiments/commands.hpp"
#include "harness/compare/sensitivity.hpp"
#include "harness/generate/cases.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct Options {
  std::string tokens = "100,1000,3000", dtypes = "f32,bf16,f16", operands = "accumulator";
  std::string module;
  std::int64_t heads = 4, kv_heads = 2, head_size = 64, sample = 0;
  bool json = false;
};

struct Row {
  std::string family;
  DType dtype;
  std::int64_t tokens;
  bool sampled;
  Sensitivity found;
};

Case case_of(const Options& o, std::int64_t tokens, DType dtype) {
  Case drawn;
  Problem& problem = drawn.problem;
  problem.shape = {1, tokens, o.heads, o.kv_heads, o.head_size, o.head_size};
  problem.dtype = dtype;
  problem.mask.causal = true;
  problem.scale = default_scale(problem.shape);
  if (!o.module.empty()) {
    problem.module = parse_module(o.module);
    problem.epsilon = default_epsilon(*problem.module);
    if (problem.module == Module::kBasic || problem.module == Module::kLightning ||
        is_normalised(*problem.module))
      problem.scale = 1;
  }
  validate(problem);
  return drawn;
}

// A power of two as people write it.
std::string text_of(double eps) {
  if (std::isnan(eps)) return "-";
  if (std::isinf(eps)) return ">1";
  return eps >= 0x1p-10 ? fmt::format("1/{:.0f}", 1 / eps) : fmt::format("{:.1e}", eps);
}

nlohmann::ordered_json number(double eps) {
  return std::isfinite(eps) ? nlohmann::ordered_json(eps) : nlohmann::ordered_json(nullptr);
}

void print_text(const Options& o, const std::vector<Row>& rows) {
  fmt::print(
      "# The smallest eps, in powers of two, that is refused in a right result: {} query heads on "
      "{}, head size {},\n",
      o.heads, o.kv_heads, o.head_size);
  fmt::print(
      "# causal, standard normal inputs, operands in {}. row: of one token and head, times 1 + "
      "eps; element: its\n",
      o.operands);
  fmt::print(
      "# largest; noise: eps times the rms of the tensor; part: out: weights of a quarter of the "
      "keys, d_q: what they\n");
  fmt::print(
      "# contribute, d_k and d_v: what a quarter of the queries does, times 1 + eps; lse: plus "
      "eps. "
      "hop: that part\n");
  fmt::print("# rounded once more, to a type of unit roundoff eps.\n");
  fmt::print("# {:<10} {:<5} {:>7}  {:<7} {:>8} {:>8} {:>8} {:>8} {:>8}\n", "family", "dtype",
             "tokens", "tensor", "row", "element", "noise", "part", "hop");
  for (const Row& r : rows) {
    fmt::print("  {:<10} {:<5} {:>7}  {:<7} {:>8} {:>8} {:>8} {:>8} {:>8}\n", r.family,
               name_of(r.dtype), fmt::format("{}{}", r.tokens, r.sampled ? "*" : ""),
               r.found.tensor, text_of(r.found.row), text_of(r.found.element),
               text_of(r.found.noise), text_of(r.found.part), text_of(r.found.hop));
  }
  for (const Row& r : rows) {
    if (!r.sampled) continue;
    fmt::print("# *: sampled\n");
    break;
  }
}

void print_json(const std::vector<Row>& rows) {
  auto out = nlohmann::ordered_json::array();
  for (const Row& r : rows) {
    out.push_back({{"family", r.family},
                   {"dtype", name_of(r.dtype)},
                   {"tokens", r.tokens},
                   {"sampled", r.sampled},
                   {"tensor", r.found.tensor},
                   {"row", number(r.found.row)},
                   {"element", number(r.found.element)},
                   {"noise", number(r.found.noise)},
                   {"part", number(r.found.part)},
                   {"hop", number(r.found.hop)}});
  }
  fmt::print("{}\n", out.dump(2));
}

int run(const Options& o) {
  if (o.sample < 0)
    throw Error(ErrorKind::kUsage,
                fmt::format("--sample {} is no number of tokens; allowed: 0 or more", o.sample));
  std::vector<Row> rows;
  const Operands operands = o.operands == "storage" ? Operands::kStorage : Operands::kAccumulator;
  for (const std::int64_t tokens : parse_sizes(o.tokens, "--tokens")) {
    if (tokens < 4)
      throw Error(
          ErrorKind::kUsage,
          fmt::format("--tokens {} is too few to plant defects in; allowed: 4 or more", tokens));
    for (const DType dtype : parse_dtypes(o.dtypes)) {
      const Case drawn = case_of(o, tokens, dtype);
      const Inputs inputs = make_inputs(drawn);
      const Sampling sampling{.tokens = o.sample};
      bool sampled = false;
      for (Sensitivity& found : sensitivity(drawn.problem, inputs, operands, sampling, &sampled))
        rows.push_back(
            {o.module.empty() ? "softmax" : o.module, dtype, tokens, sampled, std::move(found)});
    }
  }
  if (o.json)
    print_json(rows);
  else
    print_text(o, rows);
  return kOk;
}

}  // namespace

void add_sensitivity(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("sensitivity", "The smallest defects that `check` and `verify` refuse");
  const auto o = std::make_shared<Options>();
  sub.option("--tokens", o->tokens, "Numbers of tokens, e.g. 100,1000,32K").show_default();
  sub.option("--dtype", o->dtypes, "Storage types: f32, bf16, f16, f64").show_default();
  sub.option("--operands", o->operands,
             "Of the kernels that are judged: accumulator, or storage, as tensor cores take them")
      .one_of({"accumulator", "storage"})
      .show_default();
  sub.option("--module", o->module, "Linear attention of this module instead of softmax");
  sub.option("--heads", o->heads, "Query heads").show_default();
  sub.option("--kv-heads", o->kv_heads, "Key and value heads (softmax)").show_default();
  sub.option("--head-size", o->head_size, "Size of a head").show_default();
  sub.option("--sample", o->sample, "Compare so many tokens; 0: all, if they take a minute at most")
      .show_default();
  sub.flag("--json", o->json, "Machine-readable output");
  sub.footer("Example: seqpar sensitivity --tokens 1000 --dtype f32,bf16");
  sub.callback([&command, o] { command.run = [o] { return run(*o); }; });
}

}  // namespace sp
