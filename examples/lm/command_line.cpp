// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The command line: every option of every command, with its unit, its bound and its default. The
// one file besides train_command.cpp that includes CLI11, which costs 9 s of compile time.
#include "command_line.hpp"

#include <CLI/CLI.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "failure.hpp"
#include "progress.hpp"
#include "shapes.hpp"
#include "train_command.hpp"
#include "units.hpp"

namespace lm {
namespace {

constexpr char const* about =
    "strata-lm trains and serves small decoders whose layers may read each other's K/V cache.\n"
    "Start with `strata-lm demo`: in five minutes it compares models trained plainly with models\n"
    "trained by stochastic KV routing (R-CLA), at several cache sizes.";

constexpr char const* program_footer =
    "Examples:\n"
    "  strata-lm demo --minutes 2\n"
    "  strata-lm train --text book.txt --routing rcla:0.5 --steps 1000 --out book.strata\n"
    "  strata-lm eval --model book.strata --text book.txt --hold-out 20 --strategy full every:4\n"
    "  strata-lm generate --model book.strata --prompt 'In the beginning' --strategy every:4\n"
    "  strata-lm plan --shape qwen3-8b --budget 4GiB --context 32768\n"
    "  strata-lm bench --shape qwen3-0.6b --context 8192 --strategy every:4\n"
    "\n"
    "`strata-lm COMMAND --help` explains each. Exit codes: 0 done, 1 failed, 2 wrong arguments,\n"
    "3 does not fit into memory or budget, 130 interrupted (what there was has been written).";

constexpr char const* strategy_help =
    "Strategies S say which layers keep a K/V cache; every other one reads the nearest before it:\n"
    "  full            every layer keeps its own\n"
    "  every:K         layers 0, K, 2K, ...\n"
    "  spread:N        N layers, spread evenly\n"
    "  groups:2,3,...  the first layer of groups of these sizes, which add up to all layers\n"
    "  leaders:0,4,9   exactly these\n"
    "  tail:N          all but the last N\n";

/// A command whose options have one home, and what it runs in the end.
template <class Options>
class command {
 public:
  command(CLI::App& program, char const* name, std::string const& description, void (*run)(Options))
      : app_(*program.add_subcommand(name, description)) {
    app_.callback([options = options_, run] { run(*options); });
  }

  CLI::App& app() { return app_; }
  Options& options() { return *options_; }
  void footer(std::string const& examples, bool strategies = true) {
    app_.footer((strategies ? std::string(strategy_help) + "\n" : "") + examples);
  }

  CLI::Option* file(char const* name, std::string& path, char const* description) {
    return app_.add_option(name, path, description)
        ->check(CLI::ExistingFile.description(""))
        ->type_name("FILE");
  }
  CLI::Option* output(char const* name, std::string& path, char const* description) {
    return app_.add_option(name, path, description)->type_name("FILE");
  }
  CLI::Option* words(char const* name, std::string& value, char const* type,
                     char const* description) {
    return app_.add_option(name, value, description)->type_name(type)->capture_default_str();
  }
  /// A whole number between two bounds. Its default is shown unless the description says it.
  CLI::Option* count(char const* name, std::int32_t& value, std::int32_t low, std::int32_t high,
                     char const* description, bool show_default = true) {
    auto* const option = app_.add_option(name, value, description)
                             ->check(CLI::Range(low, high).description(""))
                             ->type_name("N");
    return show_default ? option->capture_default_str() : option;
  }
  CLI::Option* number(char const* name, double& value, double low, double high,
                      char const* description, bool show_default = true) {
    auto* const option = app_.add_option(name, value, description)
                             ->check(CLI::Range(low, high).description(""))
                             ->check(finite())
                             ->type_name("X");
    return show_default ? option->capture_default_str() : option;
  }
  CLI::Option* seed(std::uint64_t& value) {
    return app_.add_option("--seed", value, "of all random numbers")
        ->type_name("N")
        ->capture_default_str();
  }
  CLI::Option* threads(std::int32_t& value) {
    return count("--threads", value, 0, 1024, "0: as many as the machine has");
  }
  /// A size with a unit, as 512MiB.
  CLI::Option* bytes(std::string const& name, std::int64_t& value, char const* description) {
    auto const take = [name, &value](std::string const& given) {
      auto const parsed = parse_bytes(given);
      if (!parsed || *parsed < 1)
        throw CLI::ValidationError(name, "'" + given +
                                             "' is no size; write bytes from 1 on, such as 4096, "
                                             "64KiB or 1.5GiB");
      value = *parsed;
    };
    return app_.add_option_function<std::string>(name, take, description)->type_name("BYTES");
  }
  CLI::Option* strategies(std::vector<std::string>& values) {
    return app_.add_option("--strategy", values, "one or more strategies; see below")
        ->type_name("S...")
        ->capture_default_str();
  }
  CLI::Option* codec(cache_codec& value) {
    std::vector<std::pair<std::string, cache_codec>> names;
    for (auto const one : cache_codecs) names.emplace_back(codec_name(one), one);
    return app_
        .add_option("--codec", value, "elements of K and V: f32, f16, bf16, int8, q8_0 or fp8")
        ->transform(CLI::CheckedTransformer(names).description(""))
        ->type_name("C")
        ->default_str(codec_name(value));
  }
  CLI::Option* trained_model(std::string& path) {
    return file("--model", path, "a model that `strata-lm train` wrote")->required();
  }
  /// Exactly one of a trained model and a public model's shape.
  void model_or_shape(model_choice& choice) {
    auto& group = *app_.add_option_group("Model", "one of the two");
    group.add_option("--model", choice.file, "a model that `strata-lm train` wrote")
        ->check(CLI::ExistingFile.description(""))
        ->type_name("FILE");
    group.add_option("--shape", choice.shape, shape_names())->type_name("NAME");
    group.require_option(1);
  }

 private:
  /// A NaN is in no range and outside of none.
  static CLI::Validator finite() {
    auto const refuse = [](std::string const& given) {
      bool const number = std::isfinite(std::strtod(given.c_str(), nullptr));
      return number ? std::string() : "Value " + given + " is not finite";
    };
    return {refuse, ""};
  }

  CLI::App& app_;
  std::shared_ptr<Options> options_ = std::make_shared<Options>();
};

void add_demo(CLI::App& program) {
  command<demo_options> c(
      program, "demo",
      "Trains five small models on the same text at the same time and compares what they lose\n"
      "when layers share K/V caches: plain; rcla (R-CLA from the start); finished (plain, then\n"
      "R-CLA from half-way on); and plain models with a half and a quarter of the layers. Shows\n"
      "a live table of held-out losses, and leaves report.json, summary.txt and a plot.",
      run_demo);
  auto& o = c.options();
  c.number("--minutes", o.minutes, 0.2, 10080, "time for all of it, output included");
  c.file("--text", o.text, "text to learn [the King James Bible, from Debian's bible-kjv]");
  c.words("--out", o.out, "DIR", "folder of the report");
  c.count("--steps", o.steps, 1, 1 << 24, "training steps [as many as fit the minutes]", false);
  c.seed(o.seed);
  c.threads(o.threads);
  c.app()
      .add_option("--eval-bytes", o.eval_bytes,
                  "held-out text of the last table; 0: all of it [32768, less in short runs]")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40).description(""))
      ->type_name("N");
  c.app()
      .add_option("--also", o.also, "routings of further models, for instance cla:2 rcla:0.75")
      ->type_name("R...");
  c.count("--seeds", o.seeds, 1, 1000, "runs, with seeds seed, seed + 1, ...; needs --study");
  c.output("--study", o.study,
           "writes all seeds and their paired differences here after each seed,\n"
           "and leaves out seeds that the file already has");
  c.footer(
      "Every 20th 16 KB block of the text is held out. With --steps the same seed gives the same\n"
      "models, bit for bit, whatever the number of threads. Interrupt it (Ctrl-C) and it reports\n"
      "what it has.\n"
      "\n"
      "Examples:\n"
      "  strata-lm demo\n"
      "  strata-lm demo --minutes 1.5 --text book.txt --out report\n"
      "  strata-lm demo --steps 1200 --eval-bytes 0 --seeds 3 --study routing_study.json",
      false);
}

void add_eval(CLI::App& program) {
  command<eval_options> c(
      program, "eval",
      "The loss of a text under strategies, through the serving path, and how fast each serves.\n"
      "Text is bytes; every byte but the first of a block is scored exactly once, in windows of\n"
      "--context that begin every --stride bytes.",
      run_eval);
  auto& o = c.options();
  c.trained_model(o.model);
  c.file("--text", o.text, "text to score [the King James Bible, from Debian's bible-kjv]");
  c.strategies(o.strategies);
  c.count("--hold-out", o.hold_out, 0, 1 << 20,
          "score only every N-th block of 16 KB, those that train kept out; 0: everything");
  c.count("--context", o.context, 2, 1 << 24, "tokens of a window [the context trained with]",
          false);
  c.count("--stride", o.stride, 1, 1 << 24, "tokens between windows [half the context]", false);
  c.bytes("--max-bytes", o.max_bytes, "score no more than so much text");
  c.app()
      .add_option("--probe", o.probe,
                  "repeat: also the loss of the second copy of passages of half a context,\n"
                  "which tells whether the model finds what it has seen")
      ->check(CLI::IsMember({"repeat"}).description(""))
      ->type_name("repeat");
  c.codec(o.codec);
  c.threads(o.threads);
  c.output("--json", o.json_file, "writes the table here, too");
  c.footer(
      "Columns: loss in nats per token; K/V bytes per token as allocated; ttft: time to the first\n"
      "token of a prompt of half a context; decode: the 64 tokens after it.\n"
      "\n"
      "Examples:\n"
      "  strata-lm eval --model book.strata --text book.txt --hold-out 20 --strategy full every:4\n"
      "  strata-lm eval --model book.strata --text new.txt --probe repeat --json eval.json");
}

void add_generate(CLI::App& program) {
  command<generate_options> c(program, "generate", "Continues a prompt.", run_generate);
  auto& o = c.options();
  c.trained_model(o.model);
  c.words("--prompt", o.prompt, "TEXT", "what to continue")->required();
  c.words("--strategy", o.strategy, "S", "which layers keep a cache; see below");
  c.count("--max-tokens", o.max_tokens, 1, 1 << 24, "tokens to write");
  c.number("--temperature", o.temperature, 0, 100,
           "0: always the likeliest token; above, tokens are drawn");
  c.seed(o.seed);
  c.bytes("--kv-budget", o.kv_budget, "refuse to start if K and V of all tokens take more");
  c.codec(o.codec);
  c.threads(o.threads);
  c.footer(
      "Examples:\n"
      "  strata-lm generate --model book.strata --prompt 'In the beginning' --strategy every:4\n"
      "  strata-lm generate --model book.strata --prompt 'And' --temperature 0.8 --seed 7 "
      "--kv-budget 256KiB");
}

void add_bench(CLI::App& program) {
  command<bench_options> c(
      program, "bench",
      "How fast a model decodes at a context, under strategies and, always, full. The cache is\n"
      "filled with noise; what does not fit into memory is refused with the bytes needed.",
      run_bench);
  auto& o = c.options();
  c.model_or_shape(o.model);
  c.count("--context", o.context, 1, 1 << 24,
          "tokens in the cache of each sequence [4096; with --train the model's]", false);
  c.count("--batch", o.batch, 1, 1 << 16, "sequences together [1; with --train 16]", false);
  c.strategies(o.strategies);
  c.count("--repeat", o.steps, 1, 1 << 20, "decode or training steps that are timed");
  c.app().add_flag("--prefill", o.prefill, "run the prompt, and time it, instead of the noise");
  c.app().add_flag("--train", o.train,
                   "time the training step instead, and its products by the BLAS alone");
  c.bytes("--kv-budget", o.kv_budget, "refuse strategies whose K and V take more");
  c.codec(o.codec);
  c.threads(o.threads);
  c.output("--json", o.json_file, "writes the table here, too");
  c.footer(
      "Examples:\n"
      "  strata-lm bench --shape qwen3-0.6b --context 8192 --strategy every:2 every:4\n"
      "  strata-lm bench --shape demo --context 100000 --batch 4 --kv-budget 300MiB\n"
      "  strata-lm bench --shape demo --train");
}

void add_plan(CLI::App& program) {
  command<plan_options> c(
      program, "plan",
      "What each strategy costs in K/V memory, what fits a budget, and how much of prefill it\n"
      "skips. Allocates nothing and needs no weights.",
      run_plan);
  auto& o = c.options();
  c.model_or_shape(o.model);
  c.bytes("--budget", o.budget, "memory for K and V alone, weights not counted");
  auto* const context =
      c.count("--context", o.context, 1, 1 << 30, "tokens per sequence [the model's]", false);
  c.count("--batch", o.batch, 1, 1 << 20, "sequences at a time");
  c.file("--text", o.text, "plan for a context that holds this file")->excludes(context);
  c.number("--bytes-per-token", o.bytes_per_token, 0.1, 64,
           "of --text [1 for models of bytes, else 4, usual for English]", false);
  c.codec(o.codec);
  c.strategies(o.strategies)->default_str("full and all every:K and spread:N");
  c.footer(
      "Of a prompt, the layers above the last leader run only for the row that wants logits: that\n"
      "part of prefill is skipped, and the result is exactly the same.\n"
      "\n"
      "Examples:\n"
      "  strata-lm plan --shape qwen3-8b --budget 512MiB --context 8192\n"
      "  strata-lm plan --shape llama-3.1-8b --text book.txt --budget 8GiB\n"
      "  strata-lm plan --shape qwen3-8b --strategy groups:12,12,12");
}

int complain(char const* what, exit_code code) {
  std::fflush(stdout);
  std::fprintf(stderr, "strata-lm: %s\n", what);
  return static_cast<int>(code);
}

}  // namespace

int run_command_line(int argc, char const* const* argv) {
  CLI::App program(about, "strata-lm");
  program.require_subcommand(1);
  program.footer(program_footer);
  program.get_formatter()->column_width(32);
  add_demo(program);
  add_train_command(program);
  add_eval(program);
  add_generate(program);
  add_bench(program);
  add_plan(program);
  catch_interrupts();
  try {
    program.parse(argc, argv);
    return static_cast<int>(was_interrupted() ? exit_code::interrupted : exit_code::done);
  } catch (CLI::ParseError const& error) {
    if (argc > 1 && argv[1][0] != '-' && program.get_subcommands().empty())
      return complain((std::string("there is no command ") + argv[1] +
                       "; there are demo, train, eval, generate, bench and plan")
                          .c_str(),
                      exit_code::wrong_use);
    auto const code = program.exit(error);  // prints help, or what is wrong
    return code == 0 ? 0 : static_cast<int>(exit_code::wrong_use);
  } catch (failure const& error) {
    return complain(error.what(), error.code());
  } catch (std::bad_alloc const&) {
    return complain("out of memory", exit_code::does_not_fit);
  } catch (std::exception const& error) {
    return complain(error.what(), exit_code::failed);
  }
}

}  // namespace lm
