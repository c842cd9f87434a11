// SPDX-License-Identifier: Apache-2.0
#include "experiments/reproduce_sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "experiments/backends.hpp"
#include "experiments/progress.hpp"
#include "harness/config/nearest.hpp"
#include "harness/config/shipped.hpp"
#include "harness/papers/sha256.hpp"
#include "harness/results/atomic_file.hpp"
#include "harness/results/run_file.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

namespace fs = std::filesystem;

std::string paper_of(const ReplayItem& item) {
  const std::string id = item.id;
  return id.substr(0, id.find('/'));
}

// Of all tables of the papers, so that a corrected number is not answered with an old verdict.
std::string digest_of_tables() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(shipped("data/papers")))
    if (entry.path().extension() == ".csv") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::stringstream text;
  for (const fs::path& path : paths) text << path.filename() << std::ifstream(path).rdbuf();
  return sha256(text.str()).substr(0, 16);
}

// What computed a result. A tree that is not a commit has no name of its own: the time of its
// building stands for it.
std::string software_of(const Environment& environment) {
  std::string software = fmt::format("{} {}, tables {}", environment.at("software_version"),
                                     environment.at("commit"), digest_of_tables());
  if (environment.at("commit_dirty") == "no") return software;
  std::error_code failed;
  const auto built = fs::last_write_time("/proc/self/exe", failed).time_since_epoch().count();
  return fmt::format("{}, built {}", software, failed ? 0 : built);
}

// What the name of its run file ends with, before a number:
// "-token-ring-case-study".
std::string ending_of(const ReplayItem& item) {
  std::string ending = fmt::format("-{}", item.id);
  std::replace_if(ending.begin(), ending.end(), [](char c) { return c == '/' || c == '_'; }, '-');
  return ending;
}

std::string config_of(const ReplayItem& item, const std::string& chosen) {
  const fs::path folder = chosen.empty() ? shipped("experiments/configs") : fs::path(chosen);
  if (!chosen.empty() && !fs::is_directory(folder)) return chosen;
  return (folder / (std::string(item.id) + ".toml")).string();
}

// The newest stored replay with this key.
std::optional<std::pair<std::string, ReplayRecord>> finished(const ReplayItem& item,
                                                             const std::string& folder,
                                                             const std::string& key) {
  const std::string ending = ending_of(item);
  std::vector<std::string> paths;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".h5") && name.find(ending) != std::string::npos)
      paths.push_back(entry.path().string());
  }
  std::sort(paths.rbegin(), paths.rend());
  for (const std::string& path : paths) {
    try {
      ReplayRecord record = read_replay(path);
      if (replay_key(record) == key) return std::pair(path, std::move(record));
    } catch (const Error& error) {
      fmt::print(stderr, "seqpar: skipped: {}\n", error.what());
    }
  }
  return std::nullopt;
}

ReplayRecord record_of(const ReplayItem& item, const std::string& config_path,
                       const std::string& command_line, const Environment& environment) {
  const Config config = load_config(config_path);
  ReplayRecord record;
  record.item = item.id;
  record.title = item.title;
  record.paper = item.paper;
  record.command_line = command_line;
  record.config = config.verbatim();
  for (const Platform& platform : platforms_of(config)) record.platforms += platform.verbatim;
  record.software = software_of(environment);
  return record;
}

void replay(const SweepOptions& options,
            const std::function<void(std::int64_t, std::int64_t)>& progress,
            ReplayOutcome& outcome) {
  const ReplayItem& item = *outcome.item;
  const Environment environment = capture_environment_with_gpus();
  const std::string config = config_of(item, options.config);
  outcome.record = record_of(item, config, options.command_line, environment);
  if (options.resume) {
    auto stored = finished(item, options.out_dir, replay_key(outcome.record));
    if (stored) {
      std::tie(outcome.stored, outcome.record) = std::move(*stored);
      outcome.resumed = true;
      return;
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  outcome.record.result = run_replay(item, config, progress);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

std::vector<const ReplayItem*> chosen_replays(const std::vector<std::string>& words) {
  std::vector<const ReplayItem*> chosen;
  for (const std::string& word : words) {
    std::vector<std::string> known;
    std::set<std::string> papers;
    const std::size_t before = chosen.size();
    for (const ReplayItem* item : replay_items()) {
      known.emplace_back(item->id);
      papers.insert(paper_of(*item));
      if (item->id != word && paper_of(*item) != word) continue;
      if (std::find(chosen.begin(), chosen.end(), item) == chosen.end()) chosen.push_back(item);
    }
    const bool repeated = papers.contains(word) || find_replay(word) != nullptr;
    if (chosen.size() > before || repeated) continue;
    known.insert(known.end(), papers.begin(), papers.end());
    const std::string near = nearest(word, known);
    throw Error(ErrorKind::kUsage,
                fmt::format("unknown item '{}'{}; allowed: quick, lasp2/real-2048k, the papers {}, "
                            "and their items, which `seqpar list` names",
                            word, near.empty() ? "" : fmt::format("; did you mean '{}'?", near),
                            fmt::join(papers, ", ")));
  }
  return chosen;
}

void make_results_folder(const std::string& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed)
    throw Error(ErrorKind::kEnvironment,
                fmt::format("cannot make the folder {}: {}; name another with --out-dir", folder,
                            failed.message()));
  require_writable((fs::path(folder) / "result.h5").string());
}

std::vector<ReplayOutcome> sweep(const std::vector<const ReplayItem*>& items,
                                 const SweepOptions& options,
                                 const std::function<void(const ReplayOutcome&)>& done) {
  constexpr std::int64_t kParts = 1000;  // of an item, for the bar
  Progress progress(true);
  std::vector<ReplayOutcome> outcomes;
  for (const ReplayItem* item : items) {
    const std::int64_t before = std::ssize(outcomes) * kParts;
    const auto show = [&](std::int64_t part, std::int64_t whole) {
      progress.show(before + (whole > 0 ? kParts * part / whole : 0), std::ssize(items) * kParts);
    };
    ReplayOutcome outcome;
    outcome.item = item;
    try {
      replay(options, show, outcome);
    } catch (const Error& error) {
      if (items.size() == 1 && error.kind() == ErrorKind::kUsage) throw;
      outcome.broken = error.what();
    } catch (const std::exception& error) {
      outcome.broken = error.what();
    }
    if (outcome.broken.empty() && !outcome.resumed) {
      const Environment environment = capture_environment_with_gpus();
      outcome.stored = run_file_path(options.out_dir, environment, item->id);
      try {
        write_replay(outcome.stored, outcome.record, environment);
      } catch (const Error&) {  // a full disk, say: what was computed is shown at least
        outcome.stored.clear();
        progress.hide();
        done(outcome);
        throw;
      }
    }
    progress.hide();
    done(outcome);
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

}  // namespace sp
