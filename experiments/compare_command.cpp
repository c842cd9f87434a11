// seqpar compare: two result files, row by row.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "experiments/commands.hpp"
#include "experiments/compare_file.hpp"
#include "experiments/ratio.hpp"
#include "harness/results/bench_row.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// Shown without --all, where a file has any of them.
const std::set<std::string> kMain{"time", "forward_time", "backward_time", "bytes_sent",
                                  "sent", "peak_bytes",   "messages_sent", "peak_memory"};
const std::set<std::string> kBackends{"thread", "mpi", "cuda", "emulated", "sim"};

struct Options {
  std::string a, b;
  bool mix = false, backends = false, all = false, json = false;
};

struct Pair {
  const StoredNumber* a;
  const StoredNumber* b;
  Ratio ratio;
  const char* verdict;
};

struct Comparison {
  std::vector<Pair> pairs;
  std::vector<const StoredNumber*> only_a, only_b;
};

// "lasp2/thread/basic, ranks 8" -> "lasp2/basic, ranks 8"
std::string without_backend(const std::string& row) {
  const std::size_t end = std::min(row.find(','), row.size());
  std::string name;
  for (std::size_t start = 0; start < end;) {
    const std::size_t slash = std::min(row.find('/', start), end);
    const std::string part = row.substr(start, slash - start);
    if (!kBackends.contains(part)) name += (name.empty() ? "" : "/") + part;
    start = slash + 1;
  }
  return name + row.substr(end);
}

bool is_measured(const StoredNumber& number) { return number.kind == "measured"; }
bool mixed(const StoredNumber& a, const StoredNumber& b) {
  return (is_measured(a) && b.kind == "simulated") || (a.kind == "simulated" && is_measured(b));
}
std::string kind_of(const StoredNumber& a, const StoredNumber& b) {
  return a.kind == b.kind ? a.kind : a.kind + " / " + b.kind;
}

bool all_positive(const StoredNumber& number) {
  return std::all_of(number.samples.begin(), number.samples.end(), [](double x) { return x > 0; });
}

Pair judged(const StoredNumber& a, const StoredNumber& b) {
  Pair pair{&a, &b, {}, "no value"};
  if (all_positive(a) && all_positive(b)) pair.ratio = ratio_of(a.samples, b.samples);
  if (a.samples.empty() || b.samples.empty()) return pair;
  if (!is_measured(a) && !is_measured(b)) {  // without noise
    pair.verdict = summarize(a.samples).median == summarize(b.samples).median ? "equal" : "differs";
  } else if (std::isnan(pair.ratio.low)) {
    pair.verdict = "too few samples";
  } else {
    pair.verdict = pair.ratio.differs() ? "differs" : "within noise";
  }
  return pair;
}

bool has_main(const StoredNumbers& file) {
  return std::any_of(file.numbers.begin(), file.numbers.end(),
                     [](const StoredNumber& n) { return kMain.contains(n.quantity); });
}

Comparison compare_numbers(const StoredNumbers& a, const StoredNumbers& b, const Options& options,
                           bool drop_backend) {
  // The rows of a replay are a choice already.
  const bool all = options.all || a.schema == "seqpar.replay" || !has_main(a) || !has_main(b);
  // A name that repeats in a file means its first, second, ... row.
  using Key = std::tuple<std::string, std::string, int>;
  std::map<std::pair<std::string, std::string>, int> seen;
  const auto key = [&](const StoredNumber& number) {
    const std::string row = drop_backend ? without_backend(number.row) : number.row;
    return Key{row, number.quantity, seen[{row, number.quantity}]++};
  };
  const auto shown = [&](const StoredNumber& number) {
    return (all || kMain.contains(number.quantity)) && !number.samples.empty();
  };
  std::map<Key, const StoredNumber*> of_b;
  std::vector<std::pair<Key, const StoredNumber*>> order_b;
  for (const StoredNumber& number : b.numbers) {
    if (shown(number)) order_b.emplace_back(key(number), &number);
  }
  of_b.insert(order_b.begin(), order_b.end());
  seen.clear();
  Comparison comparison;
  for (const StoredNumber& number : a.numbers) {
    if (!shown(number)) continue;
    const auto found = of_b.find(key(number));
    if (found == of_b.end()) {
      comparison.only_a.push_back(&number);
    } else {
      comparison.pairs.push_back(judged(number, *found->second));
      of_b.erase(found);
    }
  }
  for (const auto& [name, number] : order_b) {
    if (of_b.contains(name)) comparison.only_b.push_back(number);
  }
  return comparison;
}

std::string figure(const StoredNumber& number) {
  const double median = summarize(number.samples).median;
  return is_measured(number) ? fmt::format("{:.4g}", median) : fmt::format("{:.10g}", median);
}

void print_text(const Comparison& comparison, const Options& options) {
  constexpr const char* kRow = "{} {:<52} {:<14} {:<7} {:>13} {:>13} {:>8} {:>17}  {:<16} {}\n";
  fmt::print(
      "# A: {}\n# B: {}\n"
      "# A, B: median of the samples; B/A: median over all pairs of samples, with its interval of "
      "95 % from their ranks\n"
      "# differs: the interval leaves out 1, so the difference is outside the noise within the two "
      "runs; numbers that are not measured have no noise\n",
      options.a, options.b);
  fmt::print(kRow, '#', "row", "quantity", "unit", "A", "B", "B/A", "interval", "verdict", "kind");
  std::map<std::string, int> counts;
  for (const Pair& pair : comparison.pairs) {
    ++counts[pair.verdict];
    const Ratio& r = pair.ratio;
    fmt::print(kRow, ' ', pair.a->row, pair.a->quantity, pair.a->unit, figure(*pair.a),
               figure(*pair.b), std::isnan(r.ratio) ? "-" : fmt::format("{:.4f}", r.ratio),
               std::isnan(r.low) ? "-" : fmt::format("{:.4f}..{:.4f}", r.low, r.high), pair.verdict,
               kind_of(*pair.a, *pair.b));
  }
  for (const StoredNumber* number : comparison.only_a)
    fmt::print("  {:<52} {:<14} only in A\n", number->row, number->quantity);
  for (const StoredNumber* number : comparison.only_b)
    fmt::print("  {:<52} {:<14} only in B\n", number->row, number->quantity);
  fmt::print("# {} numbers compared", comparison.pairs.size());
  for (const auto& [verdict, count] : counts) fmt::print(", {} {}", count, verdict);
  fmt::print("; {} only in A, {} only in B\n", comparison.only_a.size(), comparison.only_b.size());
}

void print_json(const Comparison& comparison, const Options& options) {
  using Json = nlohmann::ordered_json;
  Json out{{"a", options.a}, {"b", options.b}, {"rows", Json::array()}};
  const auto side = [](const StoredNumber& number) {
    return Json{{"row", number.row},
                {"kind", number.kind},
                {"median", summarize(number.samples).median},
                {"samples", number.samples}};
  };
  for (const Pair& pair : comparison.pairs) {
    out["rows"].push_back({{"quantity", pair.a->quantity},
                           {"unit", pair.a->unit},
                           {"a", side(*pair.a)},
                           {"b", side(*pair.b)},
                           {"ratio", pair.ratio.ratio},
                           {"low", pair.ratio.low},
                           {"high", pair.ratio.high},
                           {"verdict", pair.verdict}});
  }
  for (const auto& [name, numbers] :
       {std::pair{"only_a", &comparison.only_a}, std::pair{"only_b", &comparison.only_b}}) {
    out[name] = Json::array();
    for (const StoredNumber* number : *numbers)
      out[name].push_back({{"row", number->row}, {"quantity", number->quantity}});
  }
  fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
}

int compare(const Options& options) {
  const StoredNumbers a = read_stored_numbers(options.a);
  const StoredNumbers b = read_stored_numbers(options.b);
  if (a.schema != b.schema) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} is of schema {} and {} of {}; allowed: twice the "
                            "same",
                            options.a, a.schema, options.b, b.schema));
  }
  const auto has = [](const StoredNumbers& file, const char* kind) {
    return std::any_of(file.numbers.begin(), file.numbers.end(),
                       [&](const StoredNumber& number) { return number.kind == kind; });
  };
  // A simulated run names its back-end otherwise than a measured one.
  const bool across =
      (has(a, "measured") && has(b, "simulated")) || (has(a, "simulated") && has(b, "measured"));
  const Comparison comparison = compare_numbers(a, b, options, options.backends || across);
  for (const Pair& pair : comparison.pairs) {
    if (mixed(*pair.a, *pair.b) && !options.mix) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("'{}' is {} in {} and {} in {}; to compare them all the same: --mix",
                              pair.a->row, pair.a->kind, options.a, pair.b->kind, options.b));
    }
  }
  if (comparison.pairs.empty()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} and {} have no row in common{}", options.a, options.b,
                            options.backends ? "" : "; other back-ends: --backends"));
  }
  (options.json ? print_json : print_text)(comparison, options);
  return kOk;
}

}  // namespace

void add_compare(const CommandLine& app, Command& command) {
  const CommandLine sub = app.subcommand("compare", "Two result files, row by row");
  const auto options = std::make_shared<Options>();
  sub.option("a", options->a, "Result file: of a run or of a replay").required();
  sub.option("b", options->b, "Another one of the same kind").required();
  sub.flag("--all", options->all, "All numbers, not only times, bytes and memory");
  sub.flag("--backends", options->backends, "Compare rows of different back-ends");
  sub.flag("--mix", options->mix, "Compare measured with simulated numbers, labelled as such");
  sub.flag("--json", options->json, "Machine-readable output");
  sub.footer("Example: seqpar compare data/results/before.h5 data/results/after.h5");
  sub.callback([&command, options] { command.run = [options] { return compare(*options); }; });
}

}  // namespace sp
