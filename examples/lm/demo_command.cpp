// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm demo: one run with all that is shown at its end, or a study of several seeds.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.hpp"
#include "demo.hpp"
#include "demo_proofs.hpp"
#include "plot.hpp"
#include "study.hpp"

namespace lm {
namespace {

constexpr std::int32_t hold_out = 20;

void make_folder(std::string const& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw failure("--out " + path + ": " + error.message());
}

/// Throws where no byte of the text would be scored: the first of a block has nothing before it.
void require_scored(demo_options const& o, corpus const& text_read) {
  if (o.eval_bytes == 1)
    throw failure("--eval-bytes is 1; it must be 0, for all, or from 2 on", exit_code::wrong_use);
  if (std::ranges::any_of(text_read.scored(), [](auto block) { return block.size() > 1; })) return;
  throw failure(
      "--text " + o.text + " has " + count_text(text_read.bytes()) +
      " bytes; every 20th block of 16 KB is held out, and to score one it takes at least " +
      count_text((hold_out - 1) * hold_out_block + 2));
}

/// Prints, and keeps for summary.txt.
class summary {
 public:
  void say(std::string const& words) {
    std::fputs(words.c_str(), stdout);
    std::fflush(stdout);
    all_ += words;
  }
  std::string const& all() const noexcept { return all_; }

 private:
  std::string all_;
};

/// What is shown of a run besides its report; each part only while nobody interrupts.
void show_proofs(demo_run const& run, corpus const& text_read, strata::thread_pool& pool,
                 summary& out) {
  auto const& models = run.models();
  if (!interrupted()) out.say(continuations(models, text_read, run.training().seed, pool) + "\n");
  if (!interrupted()) out.say(stepwise_line(models["rcla"], text_read, pool) + "\n");
  if (!interrupted()) out.say(ceiling_lines(models["rcla"], text_read, pool) + "\n");
}

void conclude(demo_run const& run, demo_report const& report, demo_options const& o,
              corpus const& text_read, strata::thread_pool& pool, stopwatch const& clock) {
  write_json(o.out + "/report.json", to_json(report));
  summary out;
  out.say(text("\nAfter %lld steps, on %s held-out bytes (loss in nats per byte, K/V in f32):\n\n",
               static_cast<long long>(report.steps),
               count_text(run.tokens_scored_at_the_end()).c_str()));
  out.say(final_table_text(report) + "\n");
  show_proofs(run, text_read, pool, out);
  std::vector<std::string> files = {o.out + "/report.json", o.out + "/summary.txt"};
  auto const picture = loss_plot(report);
  if (!picture.lines.empty()) {
    out.say(terminal_plot(picture) + "\n");
    for (auto& file : write_plot(picture, o.out + "/loss_by_cache_size"))
      files.push_back(std::move(file));
  }
  write_text(o.out + "/summary.txt", out.all());
  std::printf("%s, after %s:\n",
              was_interrupted()     ? "Interrupted"
              : run.was_cut_short() ? "Out of time"
                                    : "Done",
              duration_text(clock.seconds()).c_str());
  for (auto const& file : files) std::printf("  %s\n", file.c_str());
}

/// What all seeds say together, beside the study's file.
void conclude(json_value const& study, std::string const& path) {
  auto const stem = std::filesystem::path(path).replace_extension().string();
  std::printf("\n%s\n", study_text(study).c_str());
  auto files = write_plot(study_plot(study), stem);
  files.insert(files.begin(), path);
  for (auto const& file : files) std::printf("  %s\n", file.c_str());
}

json_value settings_of(demo_run const& run, demo_options const& o, corpus const& text_read) {
  auto const& t = run.training();
  auto training = to_json(t);
  for (auto const* const key : {"seed", "routing", "text", "schedule", "depth_schedule"})
    training.erase(key);
  training["steps"] = o.steps;
  return {{"machine", machine_text()},
          {"model", to_json(t.model)},
          {"training", training},
          {"text", {{"bytes", text_read.bytes()}, {"crc32c", text_read.checksum()}}},
          {"eval_bytes", o.eval_bytes},
          {"also", o.also}};
}

void run_study(demo_options const& o, corpus const& text_read, std::string const& text_name,
               strata::thread_pool& pool) {
  if (o.steps == 0)
    throw failure("--study needs --steps: seeds of different lengths cannot be compared",
                  exit_code::wrong_use);
  auto const settings = settings_of({o, o.seed, text_read, text_name, pool}, o, text_read);
  auto study = open_study(o.study, settings);
  for (std::int32_t i = 0; i < o.seeds; ++i) {
    stopwatch const clock;
    auto const seed = o.seed + static_cast<std::uint64_t>(i);
    if (has_seed(study, seed)) {
      std::printf("seed %llu: already in %s\n", static_cast<unsigned long long>(seed),
                  o.study.c_str());
      continue;
    }
    std::printf("seed %llu, run %d of %d\n", static_cast<unsigned long long>(seed), i + 1, o.seeds);
    auto one = o;
    one.out = o.out + "/seed-" + std::to_string(seed);
    make_folder(one.out);
    demo_run run(one, seed, text_read, text_name, pool);
    auto const report = run.run();
    if (was_interrupted()) {
      std::printf("interrupted: seed %llu is left out; the same command goes on with it\n",
                  static_cast<unsigned long long>(seed));
      return;
    }
    auto entry = to_json(report);
    // Rates of one afternoon have no mean; each seed's report.json keeps its own.
    for (auto& model : entry.at("models"))
      for (auto& line : model.at("strategies"))
        for (auto const* const rate : {"ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s"})
          line.erase(rate);
    entry["tokens_scored"] = run.tokens_scored_at_the_end();
    study["runs"].push_back(std::move(entry));
    summarise(study);
    write_json(o.study, study);
    conclude(run, report, one, text_read, pool, clock);
  }
  conclude(study, o.study);
}

}  // namespace

void run_demo(demo_options o) {
  stopwatch const clock;
  if (o.seeds > 1 && o.study.empty())
    throw failure("--seeds needs --study, the file for what the seeds have in common",
                  exit_code::wrong_use);
  make_folder(o.out);
  require_writable("--out", o.out + "/report.json");
  require_writable("--study", o.study);
  strata::thread_pool pool(o.threads);
  std::vector<std::string> files;
  if (!o.text.empty()) files.push_back(o.text);
  auto const text_read = corpus::read(files, hold_out);
  require_scored(o, text_read);
  auto const text_name = o.text.empty() ? std::string("the King James Bible") : o.text;
  if (!o.study.empty()) return run_study(o, text_read, text_name, pool);
  demo_run run(o, o.seed, text_read, text_name, pool, clock);
  auto const report = run.run();
  conclude(run, report, o, text_read, pool, clock);
}

}  // namespace lm
