// LWM, tables 11 and 13: are the stages' meshes feasible, and do steps and batches give the tokens?
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kStateBytes = 16;  // per parameter: f32 weight, gradient and two moments

struct Model {
  std::int64_t layers, hidden, heads;
};

struct Stage {
  std::string label;
  std::int64_t tokens, batch, tp, sp;
  double cores, parameters;
  // Sequences that one fsdp rank gets if a machine has `devices`.
  double sequences_per_rank(double devices) const {
    return static_cast<double>(batch) / static_cast<double>(tokens) / fsdp(devices);
  }
  double fsdp(double devices) const { return devices / static_cast<double>(tp * sp); }
  bool whole(double devices) const {
    const double sequences = sequences_per_rank(devices);
    return sequences >= 1 && sequences == std::floor(sequences);
  }
};

// "TPUv4-512": the number in the name.
double cores_of(const Config& config, const std::string& hardware) {
  const std::size_t dash = hardware.rfind('-');
  double cores = 0;
  const char* end = hardware.data() + hardware.size();
  const auto [stop, error] =
      std::from_chars(hardware.data() + (dash == hardware.npos ? 0 : dash + 1), end, cores);
  if (error != std::errc() || stop != end || cores < 1)
    config.refuse("stages", fmt::format("'{}' names no number of devices", hardware));
  return cores;
}

// Bytes per chip: what a rank holds of attention in a ring (or alone), with its shards.
double attention_bytes(const Model& model, const Stage& stage) {
  const std::int64_t head = model.hidden / model.heads, heads = model.heads / stage.tp;
  const Problem problem =
      softmax_problem({1, stage.tokens, heads, heads, head, head}, DType::kF32, true);
  const Counted ring = count("ring/contiguous", problem, {.size = static_cast<int>(stage.sp)});
  const double shards = 3.0 * 4 * static_cast<double>(stage.tokens / stage.sp * heads * head);
  return static_cast<double>(ring.most.forward.peak_bytes) + shards;
}

// Of one hop in forward, sent by one chip.
double hop_bytes(const Model& model, const Stage& stage) {
  if (stage.sp == 1) return 0;
  const std::int64_t head = model.hidden / model.heads, heads = model.heads / stage.tp;
  const Problem problem =
      softmax_problem({1, stage.tokens, heads, heads, head, head}, DType::kF32, true);
  const Counted ring = count("ring/contiguous", problem, {.size = static_cast<int>(stage.sp)});
  return static_cast<double>(ring.most.forward.bytes_sent) / static_cast<double>(stage.sp - 1);
}

void add_geometry(ReplayResult& result, const Config& config, const PaperTable& geometry,
                  const std::string& family, const std::string& name, const Stage& stage,
                  const Model& model) {
  for (std::size_t row = 0; row < geometry.rows(); ++row) {
    if (geometry.text(row, "family") != family || geometry.text(row, "stage") != name) continue;
    const double chips = stage.cores / 2;
    const auto add = [&](const char* column, const char* what, const char* unit, double ours,
                         Provenance provenance) {
      result.rows.push_back(
          row_of(stage.label, what, unit, cell(geometry, row, column), ours, provenance));
    };
    add("fsdp", "fsdp ranks", "1", stage.fsdp(chips), Provenance::kFormula);
    add("sequences_per_fsdp_rank", "sequences per fsdp rank", "1", stage.sequences_per_rank(chips),
        Provenance::kFormula);
    add("tokens_per_rank", "tokens of a sequence per sp rank", "token",
        static_cast<double>(stage.tokens / stage.sp), Provenance::kFormula);
    add("hop_forward", "sent per hop of the ring", "MiB",
        hop_bytes(model, stage) / (1024.0 * 1024.0), Provenance::kCounted);
    return;
  }
  config.refuse("geometry", fmt::format("no row for {} {}", family, name));
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable geometry = table_of(config, "geometry");
  const Model model{config.integer("layers", 1, 1 << 10), config.integer("hidden", 1, 1 << 20),
                    config.integer("heads", 1, 1 << 10)};
  const double memory = config.quantity("memory", Dimension::kBytes, 1, 1e15).value;
  ReplayResult result;
  int stages = 0, whole_as_devices = 0;
  double largest = 0;
  for (const Config& family : config.tables("family")) {
    const std::string name = family.text("name");
    const PaperTable table = table_of(family);
    const std::int64_t batch = family.size("batch", 1);
    for (std::size_t row = 0; row < table.rows(); ++row) {
      const std::string& stage_name = table.text(row, "stage");
      const auto integer = [&](const char* column) { return whole_number(table, row, column); };
      const Stage stage{fmt::format("{} {}", name, stage_name),
                        integer("tokens"),
                        batch,
                        rank_count(table, row, "tp"),
                        rank_count(table, row, "sp"),
                        cores_of(config, table.text(row, "hardware")),
                        table.number(row, "parameters")};
      const double chips = stage.cores / 2;
      ++stages;
      whole_as_devices += stage.whole(stage.cores);
      result.rows.push_back(
          claim_row(stage.label, "the mesh divides the batch into whole sequences",
                    stage.whole(chips) && model.heads % stage.tp == 0, Provenance::kFormula,
                    fmt::format("{:g} sequences per fsdp rank", stage.sequences_per_rank(chips)),
                    table.grade(row)));
      const double tokens_per_chip = static_cast<double>(batch) / chips;
      const double inputs = tokens_per_chip * static_cast<double>(model.layers * model.hidden) * 4;
      const double bytes =
          stage.parameters * kStateBytes / chips + inputs + attention_bytes(model, stage);
      largest = std::max(largest, bytes);
      result.rows.push_back(claim_row(stage.label, "the stage fits in the memory of a chip",
                                      bytes <= memory, Provenance::kCounted,
                                      fmt::format("{:.1f} GiB", bytes / kGiB), table.grade(row)));
      const double trained = table.number(row, "steps") * table.number(row, "batch");
      result.rows.push_back(
          row_of(stage.label, "tokens trained: steps times batch", "token",
                 cell(table, row, "total"), trained, Provenance::kFormula,
                 fmt::format("{:g} steps of {:g} tokens are {:.4g}", table.number(row, "steps"),
                             table.number(row, "batch"), trained)));
      add_geometry(result, config, geometry, name, stage_name, stage, model);
    }
  }
  result.findings = {
      fmt::format(
          "Read as N / 2 chips of one device each, all {} meshes divide their batches; read "
          "as N devices, {} do.",
          stages, whole_as_devices),
      fmt::format("A chip needs {:.1f} GiB at most for states, layer inputs and attention. Every "
                  "chip holds as many tokens of a batch at every stage.",
                  largest / kGiB),
      "Rings have 2 and 4 ranks, in the 512K and 1M stages only: the headline says nothing about "
      "large rings.",
      "Batches of \"4M\" and \"8M\" tokens are 2^22 and 2^23 where meshes must divide them, and "
      "decimal in most totals; the totals of vision 1K, 8K and 128K are neither."};
  result.assumption =
      "v4-N has N / 2 chips of one device each; layer inputs are kept in f32 and split over tp, as "
      "the released code constrains them, and nothing else of the forward pass.";
  return result;
}

}  // namespace

const ReplayItem kLwmMeshes{"lwm/meshes", "LWM tables 11 and 13: feasible meshes",
                            "Liu, Yan, Zaharia, Abbeel 2024, arXiv:2402.08268, tables 11 and 13",
                            run};

}  // namespace sp
