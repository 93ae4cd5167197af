// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What `strata-lm train` does.
#include <cstdio>
#include <deque>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include <strata/thread_pool.hpp>

#include "checkpoint.hpp"
#include "formats/open_model.hpp"
#include "output_file.hpp"
#include "progress.hpp"
#include "serving.hpp"
#include "text.hpp"
#include "train_command.hpp"
#include "trainer.hpp"
#include "units.hpp"

namespace lm {
namespace {

/// Loss over the last steps, speed and time left.
class training_news {
 public:
  explicit training_news(training_run const& run) : run_(run) {}

  void add(step_report const& report) {
    losses_.push_back(report.loss);
    if (losses_.size() > 20) losses_.pop_front();
    tokens_ += report.tokens;
    auto const left = run_.options().steps - run_.steps_done();
    auto const per_step = watch_.seconds() / static_cast<double>(++steps_);
    live_.show(text("step %lld/%lld  loss %.3f  %s tokens/s  %s left\n",
                    static_cast<long long>(run_.steps_done()),
                    static_cast<long long>(run_.options().steps), loss(),
                    count_text(static_cast<std::int64_t>(speed())).c_str(),
                    duration_text(per_step * static_cast<double>(left)).c_str()),
               left == 0);
  }
  void keep() { live_.keep(); }

  /// Mean of the last 20 steps, under the routes that they drew.
  double loss() const {
    return std::accumulate(losses_.begin(), losses_.end(), 0.0) /
           static_cast<double>(losses_.size());
  }
  double speed() const { return static_cast<double>(tokens_) / watch_.seconds(); }
  std::int64_t steps() const { return steps_; }

 private:
  training_run const& run_;
  live_text live_;
  stopwatch watch_;
  std::deque<double> losses_;
  std::int64_t tokens_ = 0;
  std::int64_t steps_ = 0;
};

/// JSON lines. "sources": of each micro-batch, the layer whose K and V each layer read; a
/// recorded_route replays them.
class step_log {
 public:
  step_log(std::string const& path, bool append) : path_(path) {
    if (path.empty()) return;
    file_.open(path, append ? std::ios::app : std::ios::trunc);
    require_good();
  }

  void write(step_report const& report, training_run const& run) {
    if (path_.empty()) return;
    auto routes = nlohmann::ordered_json::array();
    for (auto const& plan : run.plans()) {
      auto sources = nlohmann::ordered_json::array();
      for (std::int32_t l = 0; l < plan.num_layers; ++l)
        sources.push_back(plan.layers[l].k.source.index);
      routes.push_back(std::move(sources));
    }
    nlohmann::ordered_json const line = {
        {"step", report.step},     {"loss", report.loss},
        {"lr", report.lr},         {"gradient_norm", report.gradient_norm},
        {"tokens", report.tokens}, {"seconds", report.seconds},
        {"sources", routes}};
    file_ << line << std::endl;  // whoever follows the file sees whole lines
    require_good();
  }

 private:
  void require_good() const {
    if (!file_.good()) throw failure("--log " + path_ + ": cannot be written");
  }
  std::string path_;
  std::ofstream file_;
};

void require_memory(training_options const& o, std::int32_t threads) {
  auto const rows =
      (std::int64_t{o.batch} + o.draws_per_step - 1) / o.draws_per_step * o.model.context;
  auto const weights = 4 * make_tensor_table(o.model).size;  // gradient and two moments, too
  require_fit((weights + activations<float>::count(o.model, rows, threads)) *
                  static_cast<std::int64_t>(sizeof(float)),
              available_memory(), "training", "this machine");
}

void print_start(training_run const& run, corpus const& text_read,
                 strata::thread_pool const& pool) {
  auto const& o = run.options();
  auto const& c = o.model;
  std::fprintf(
      stderr,
      "%s parameters: %d layers x %d, %d query and %d KV heads of %d, MLP %d\n"
      "%s bytes of text%s; routing %s; %lld steps of %d x %d bytes, %d threads\n",
      count_text(c.parameter_count()).c_str(), c.layers, c.dim, c.q_heads, c.kv_heads, c.head_dim,
      c.mlp, count_text(text_read.bytes()).c_str(),
      o.hold_out == 0
          ? ""
          : (", of which every " + std::to_string(o.hold_out) + "th block is held out").c_str(),
      o.routing.c_str(), static_cast<long long>(o.steps), o.batch, c.context, pool.num_shares());
}

void train_to_the_end(training_run& run, train_request const& request) {
  training_news news(run);
  step_log log(request.log, request.resume);
  while (!run.finished() && !interrupted()) {
    auto const report = run.step();
    log.write(report, run);
    news.add(report);
    bool const due = request.save_every > 0 && run.steps_done() % request.save_every == 0;
    if (due && !run.finished()) run.save(request.out);
  }
  news.keep();
  run.save(request.out);
  if (news.steps() > 0)
    std::fprintf(stderr, "loss %.3f over the last steps, %s tokens/s\n", news.loss(),
                 count_text(static_cast<std::int64_t>(news.speed())).c_str());
  std::fprintf(stderr, "saved %s after step %lld\n", request.out.c_str(),
               static_cast<long long>(run.steps_done()));
  if (!run.finished())
    std::fprintf(stderr, "interrupted; go on with: strata-lm train --resume --out %s\n",
                 request.out.c_str());
}

/// A new run, or with --resume the one in the file.
std::unique_ptr<training_run> make_run(train_request const& request,
                                       training_options const& options,
                                       std::optional<checkpoint> const& saved,
                                       corpus const& text_read, strata::thread_pool& pool) {
  require_built_for(request.device);
#if STRATA_LM_CUDA
  if (request.device == device_kind::cuda)
    return cuda::make_run(options, text_read, request.resume ? &*saved : nullptr);
#endif
  require_memory(options, pool.num_shares());
  if (request.resume) return trainer::resume(*saved, text_read, pool);
  return std::make_unique<trainer>(options, text_read, pool);
}

}  // namespace

void run_train(train_request const& request) {
  require_writable("--out", request.out);
  strata::thread_pool pool(request.threads);
  auto options = request.training;
  std::optional<checkpoint> saved;
  if (request.resume) {
    saved = load_checkpoint(request.out);
    try {
      auto& arguments = saved->training.at("arguments");
      // Among the saved arguments, so that what is saved next names the files where they are now.
      if (!options.text.empty()) arguments.at("text") = options.text;
      options = options_from_json(arguments, saved->weights.config());
    } catch (nlohmann::json::exception const& error) {
      throw failure(request.out + ": its training cannot go on: " + error.what());
    }
  } else if (!request.init.empty()) {
    auto loaded = load_model(request.init);
    saved = checkpoint{std::move(loaded.weights), {}, std::move(loaded.training)};
    auto const context = options.model.context;
    options.model = saved->weights.config();
    if (!request.keep_context) options.model.context = context;
  }
  if (auto const wrong = options.check(); !wrong.empty())
    throw failure(wrong, exit_code::wrong_use);
  auto const text_read = corpus::read(options.text, options.hold_out);
  auto run = make_run(request, options, saved, text_read, pool);
  if (!request.init.empty()) run->start_from(saved->weights);
  saved.reset();
  print_start(*run, text_read, pool);
  train_to_the_end(*run, request);
}

}  // namespace lm
