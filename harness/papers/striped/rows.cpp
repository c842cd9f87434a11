// Striped Attention, appendix A: whole models, sped up by striping their attention alone.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/papers/counted.hpp"
#include "harness/papers/measured.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct Model {
  double hidden = 0, feedforward = 0, layers = 0, vocabulary = 0;
  std::int64_t heads = 0;
};

Model model_of(const PaperTable& models, const std::string& name) {
  for (std::size_t row = 0; row < models.rows(); ++row) {
    if (models.text(row, "model") != name) continue;
    return {models.number(row, "hidden"), models.number(row, "feedforward"),
            models.number(row, "layers"), models.number(row, "vocabulary"),
            static_cast<std::int64_t>(models.number(row, "heads"))};
  }
  throw Error(ErrorKind::kUsage, fmt::format("{}: no model {}", models.name(), name));
}

// Everything but attention, forward and backward, of one device: its share of tokens and weights.
double rest_seconds(const Device& device, const Model& m, double tokens, double devices) {
  const double weights =
      m.layers * (4 * m.hidden * m.hidden + 3 * m.hidden * m.feedforward) + m.vocabulary * m.hidden;
  return 6 * weights * tokens / devices / (device.half_flops * device.kernels.matrix);
}

}  // namespace

std::vector<MeasuredRow> striped_rows(const PaperTable& speedups, const PaperTable& models,
                                      const std::string& hardware) {
  std::vector<MeasuredRow> rows;
  for (std::size_t row = 0; row < speedups.rows(); ++row) {
    if (speedups.text(row, "hardware").find(hardware) == std::string::npos) continue;
    const auto whole = [&](const char* column) {
      return static_cast<int>(speedups.number(row, column));
    };
    const std::string name = speedups.text(row, "model");
    const Model model = model_of(models, name);
    const int tp = whole("tp"), sp = whole("sp");
    const std::int64_t tokens = whole("tokens"), heads = model.heads / tp;
    const std::int64_t size = static_cast<std::int64_t>(model.hidden) / model.heads;
    const Problem problem =
        softmax_problem({1, tokens, heads, heads, size, size}, DType::kF32, true);
    const auto predict = [=](const Platform& platform) {
      const auto model_seconds = [&](const char* algorithm) {
        const LayerSeconds layer = layer_seconds(platform, algorithm, problem, {sp, sp, 1});
        return rest_seconds(platform.device, model, static_cast<double>(tokens), tp * sp) +
               model.layers * (layer.forward + layer.backward);
      };
      return model_seconds("ring/contiguous") / model_seconds("ring/striped");
    };
    const bool fitted = name == "1B" && sp == 4 && tp == (hardware == "TPU v4" ? 4 : 2);
    PaperValue observed = cell(speedups, row, "observed");
    observed.rounding = 0.005;  // two decimals throughout; 1.30 is stored as 1.3
    rows.push_back({fmt::format("{}, {}, mesh {}x{}, {}K", speedups.text(row, "hardware"), name, tp,
                                sp, tokens / 1024),
                    "observed speedup", "1", observed, predict, fitted, ""});
  }
  return rows;
}

}  // namespace sp
