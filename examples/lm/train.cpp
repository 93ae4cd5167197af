// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What `strata-lm train` does.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include <strata/thread_pool.hpp>

#include "checkpoint.hpp"
#include "formats/adapter_folder.hpp"
#include "formats/open_model.hpp"
#include "output_file.hpp"
#include "progress.hpp"
#include "question_data.hpp"
#include "serving.hpp"
#include "text.hpp"
#include "text_coder.hpp"
#include "train_command.hpp"
#include "trainer.hpp"
#include "training_data.hpp"
#include "units.hpp"
#include "validation.hpp"

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
    write(line);
  }
  void write(nlohmann::ordered_json const& line) {
    if (path_.empty()) return;
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
  auto const most = largest_pass(o);
  auto const rows = std::int64_t{most.num_seqs} * most.length;
  // With their gradients and two moments, or what adapters are added to.
  auto const weights = (o.lora > 0 ? 3 : 4) * make_tensor_table(o.model).size;
  auto const kept = o.distill > 0 ? rows * o.model.vocab : std::int64_t{0};
  require_fit((weights + activations<float>::count(o.model, rows, threads) + kept) *
                  static_cast<std::int64_t>(sizeof(float)),
              available_memory(),
              "training on --batch " + std::to_string(o.batch) + " sequences of --context " +
                  std::to_string(o.sequence_length()) + " tokens",
              "this machine");
}

std::string data_text(training_options const& o, training_data const& data) {
  auto const bytes = count_text(data.bytes()) + " bytes of ";
  if (!o.questions.empty())
    return bytes + "questions" + (o.answers_only ? ", of which answers count" : "");
  if (o.hold_out == 0) return bytes + "text";
  return bytes + "text, of which every " + std::to_string(o.hold_out) + "th block is held out";
}

/// Empty where all parameters are trained.
std::string trained_text(training_options const& o) {
  if (o.lora == 0) return "";
  return ", and " + count_text(adapter_table(o.model, o.lora).tensors.size) +
         " of adapters, which alone are trained";
}

void print_start(training_run const& run, strata::thread_pool const& pool) {
  auto const& o = run.options();
  auto const& c = o.model;
  std::fprintf(stderr,
               "%s parameters%s: %d layers x %d, %d query and %d KV heads of %d, MLP %d\n"
               "%s; routing %s; %lld steps of %d x %d tokens, %d threads\n",
               count_text(c.parameter_count()).c_str(), trained_text(o).c_str(), c.layers, c.dim,
               c.q_heads, c.kv_heads, c.head_dim, c.mlp, data_text(o, run.data()).c_str(),
               o.routing.c_str(), static_cast<long long>(o.steps), o.batch, o.sequence_length(),
               pool.num_shares());
}

/// Losses of what is held out, under each strategy, to the log and to the terminal.
void validate(validation& held_out, step_log& log, live_text& news) {
  if (held_out.empty()) return;
  auto const line = held_out.line();
  log.write(line);
  std::string shown = "held out:";
  for (auto const& one : line.at("validation"))
    shown += text("  %s %.4f", one.at("strategy").get<std::string>().c_str(),
                  one.at("loss").get<double>());
  news.show(shown + "\n", true);
}

/// The model and, where they are wanted, the adapters alone.
void save_all(training_run const& run, train_request const& request) {
  run.save(request.out, !request.weights_only);
  if (request.adapters_out.empty()) return;
  auto const trained = run.trained_adapters();
  save_adapters(request.adapters_out, run.options().model, trained.rank, trained.values, run.base(),
                {run.description(), {}});
}

void train_to_the_end(training_run& run, train_request const& request) {
  bool const resumable = !request.weights_only;
  training_news news(run);
  step_log log(request.log, request.resume);
  validation held_out(run, request.validate, request.validate_tokens);
  live_text scores;
  while (!run.finished() && !interrupted()) {
    auto const report = run.step();
    log.write(report, run);
    news.add(report);
    bool const due = request.save_every > 0 && run.steps_done() % request.save_every == 0;
    if (due && !run.finished()) save_all(run, request);
    bool const scored =
        request.validate_every > 0 && run.steps_done() % request.validate_every == 0;
    if (scored && !run.finished()) validate(held_out, log, scores);
  }
  news.keep();
  if (run.finished()) validate(held_out, log, scores);
  save_all(run, request);
  if (news.steps() > 0)
    std::fprintf(stderr, "loss %.3f over the last steps, %s tokens/s\n", news.loss(),
                 count_text(static_cast<std::int64_t>(news.speed())).c_str());
  std::fprintf(stderr, "saved %s after step %lld\n", request.out.c_str(),
               static_cast<long long>(run.steps_done()));
  auto const& adapters = request.adapters_out;
  if (!adapters.empty()) std::fprintf(stderr, "wrote the adapters to %s\n", adapters.c_str());
  if (!run.finished() && resumable)
    std::fprintf(stderr, "interrupted; go on with: strata-lm train --resume --out %s%s\n",
                 request.out.c_str(),
                 (adapters.empty() ? "" : " --adapters-out " + adapters).c_str());
}

using data_pointer = std::shared_ptr<training_data const>;

/// A new run, or with --resume the one in the file.
std::unique_ptr<training_run> make_run(train_request const& request,
                                       training_options const& options,
                                       std::optional<checkpoint> const& saved, data_pointer data,
                                       strata::thread_pool& pool) {
  require_built_for(request.device);
#if STRATA_LM_CUDA
  if (request.device == device_kind::cuda)
    return cuda::make_run(options, std::move(data), request.resume ? &*saved : nullptr);
#endif
  require_memory(options, pool.num_shares());
  if (request.resume) return trainer::resume(*saved, std::move(data), pool);
  return std::make_unique<trainer>(options, std::move(data), pool);
}

/// The arguments that a run in a file began with; texts may lie elsewhere now.
training_options saved_arguments(train_request const& request, checkpoint& saved) {
  try {
    auto& arguments = saved.training.at("arguments");
    // Among the saved arguments, so that what is saved next names the files where they are now.
    if (!request.training.text.empty()) arguments["text"] = request.training.text;
    return options_from_json(arguments, saved.weights.config());
  } catch (nlohmann::json::exception const& error) {
    throw failure(request.out + ": its training cannot go on: " + error.what());
  }
}

/// Tokens of a sequence where nobody says: what finished models are made for is often more than a
/// machine can train on.
constexpr std::int32_t start_length = 512;

/// A model that a run starts from, whose shape becomes that of the run.
checkpoint start_of(train_request const& request, training_options& options) {
  auto loaded = load_model(request.init, request.adapters);
  auto const asked = options.model.context;
  options.model = loaded.weights.config();
  auto& context = options.model.context;
  auto const made_for = context;
  options.length = context = request.given_context ? asked : std::min(made_for, start_length);
  if (auto const wrong = options.model.check(); !wrong.empty())
    throw failure(wrong, exit_code::wrong_use);
  context = std::max(made_for, options.length);
  return {std::move(loaded.weights), {}, std::move(loaded.training)};
}

/// The model whose weights a run starts or started from; empty where no file has them.
std::string base_of(train_request const& request, std::optional<checkpoint> const& saved) {
  std::error_code unknown;
  if (request.resume) return saved->training.value("base", std::string());
  if (request.init.empty() || !request.adapters.empty()) return "";
  return std::filesystem::absolute(request.init, unknown).string();
}

void require_adapters(training_options const& options, std::string const& base) {
  if (options.lora == 0)
    throw failure("--adapters-out cannot be given: without --lora there are no adapters",
                  exit_code::wrong_use);
  if (base.empty())
    throw failure(
        "--adapters-out cannot be given: the run began without --init, so that no file "
        "has the model that its adapters are of",
        exit_code::wrong_use);
}

}  // namespace

void run_train(train_request const& request) {
  require_writable("--out", request.out);
  strata::thread_pool pool(request.threads);
  auto options = request.training;
  std::optional<checkpoint> saved;
  if (request.resume) {
    saved = load_checkpoint(request.out);
    options = saved_arguments(request, *saved);
  } else if (!request.init.empty()) {
    saved = start_of(request, options);
  }
  if (auto const wrong = options.check(); !wrong.empty())
    throw failure(wrong, exit_code::wrong_use);
  auto const base = base_of(request, saved);
  if (!request.adapters_out.empty()) require_adapters(options, base);
  auto const& begun_with = request.resume ? request.out : request.init;
  auto const coder = begun_with.empty() ? text_coder() : load_text_coder(begun_with);
  require_vocabulary(coder, options.model);
  auto const asks = !options.questions.empty();
  auto const text_read = asks ? corpus({}, 0) : corpus::read(options.text, options.hold_out);
  data_pointer data;
  if (asks)
    data = std::make_shared<question_data>(options.questions, coder, options.sequence_length(),
                                           options.answers_only);
  else
    data = make_text_data(text_read, coder, options.sequence_length());
  auto run = make_run(request, options, saved, data, pool);
  run->set_tokenizer(coder.source());
  run->set_base(base);
  if (!request.init.empty()) run->start_from(saved->weights);
  saved.reset();
  print_start(*run, pool);
  train_to_the_end(*run, request);
}

}  // namespace lm
