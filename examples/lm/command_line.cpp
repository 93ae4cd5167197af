// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The command line: options with their units, bounds and defaults. Commands that need much of it have
// files of their own. CLI11 costs 9 s of compile time; what commands do is compiled without it.
#include "command_line.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <strata/version.hpp>

#include "command.hpp"
#include "commands.hpp"
#include "export_command.hpp"
#include "failure.hpp"
#include "progress.hpp"
#include "study_commands.hpp"
#include "tokens_command.hpp"
#include "train_command.hpp"

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
      "Of each block every token but the first is scored exactly once, in windows of --context\n"
      "tokens that begin every --stride; a model without a tokenizer has bytes for tokens.",
      run_eval);
  auto& o = c.options();
  c.trained_model(o.model);
  c.adapters(o.adapters);
  c.scored_text(true);
  c.strategies(o.strategies);
  c.app()
      .add_option("--probe", o.probe,
                  "repeat: also the loss of the second copy of passages of half a context,\n"
                  "which tells whether the model finds what it has seen")
      ->check(CLI::IsMember({"repeat"}).description(""))
      ->type_name("repeat");
  c.codec(o.codec, "f32; bf16 on a device");
  c.device(o.device);
  c.weights(o.weights);
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
  c.adapters(o.adapters);
  c.words("--prompt", o.prompt, "TEXT", "what to continue")->required();
  c.app().add_flag("--chat", o.chat,
                   "the prompt is a question to a model for conversations, asked as ChatML has it");
  c.app()
      .add_option(
          "--system", o.system,
          "with --chat: what the model is told first [what SmolLM2's template says, if the\n"
          "model has that; else nothing]")
      ->type_name("TEXT");
  c.words("--strategy", o.strategy, "S", "which layers keep a cache; see below");
  c.count("--max-tokens", o.max_tokens, 1, 1 << 24,
          "tokens to write, fewer where the model ends its text");
  c.number("--temperature", o.temperature, 0, 100,
           "0: always the likeliest token; above, tokens are drawn");
  c.seed(o.seed);
  c.bytes("--kv-budget", o.kv_budget, "refuse to start if K and V of all tokens take more");
  c.codec(o.codec, "f32; bf16 on a device");
  c.device(o.device);
  c.weights(o.weights);
  c.threads(o.threads);
  c.footer(
      "Examples:\n"
      "  strata-lm generate --model book.strata --prompt 'In the beginning' --strategy every:4\n"
      "  strata-lm generate --model book.strata --prompt 'And' --temperature 0.8 --seed 7 "
      "--kv-budget 256KiB\n"
      "  strata-lm generate --model SmolLM2-135M-Instruct.Q4_1.gguf --chat --prompt 'What is a star?'");
}

void add_answer(CLI::App& program) {
  command<answer_options> c(
      program, "answer",
      "Answers questions about passages, greedily, under strategies, and scores the answers: F1,\n"
      "exact match and ROUGE-L, of words as SQuAD normalises them. A model sees the passages, then\n"
      "the question, as `train --questions` shows them.",
      run_answer);
  auto& o = c.options();
  c.trained_model(o.model);
  c.adapters(o.adapters);
  c.file("--questions", o.questions,
         "a line for each: {\"set\": \"...\", \"passages\": [\"...\"],\n"
         "\"question\": \"...\", \"answers\": [\"...\"]}")
      ->required();
  c.strategies(o.strategies);
  c.app().add_option("--set", o.sets, "only questions of these sets [all]")->type_name("NAME...");
  c.count("--limit", o.limit, 0, 1 << 24, "only the first so many questions of each set; 0: all");
  c.count("--max-tokens", o.max_tokens, 1, 1 << 16,
          "of an answer; where tokens are bytes, 128 hold a dozen words");
  c.count("--context", o.context, 2, 1 << 24,
          "tokens that a question and its answer may have [the model's]", false);
  c.count("--batch", o.batch, 1, 1 << 12, "questions at a time");
  c.codec(o.codec, "f32; bf16 on a device");
  c.device(o.device);
  c.weights(o.weights);
  c.threads(o.threads);
  c.output("--json", o.json_file, "writes the table here, too");
  c.output("--answers", o.answers_file, "writes the answers and their scores here, a line each");
  c.footer(
      "An answer ends with the model's end mark or with its line. Of several accepted answers, the\n"
      "best counts.\n"
      "\n"
      "Examples:\n"
      "  strata-lm answer --model qa.strata --questions test.jsonl --strategy full every:2 every:4\n"
      "  strata-lm answer --model qa.strata --questions test.jsonl --set verses --limit 10 "
      "--answers said.jsonl");
}

void add_bench(CLI::App& program) {
  command<bench_options> c(
      program, "bench",
      "How fast a model serves, and in how much memory, under strategies and, always, full: a\n"
      "table for each context and batch. The cache is filled with noise, or with --prefill by a\n"
      "prompt, which is timed. What does not fit into memory is refused with the bytes needed.",
      run_bench);
  auto& o = c.options();
  c.model_or_shape(o.model);
  auto* const contexts =
      c.counts("--context", o.contexts, 1, 1 << 24,
               "tokens in the cache of each sequence [4096; with --train the model's]");
  auto* const batches =
      c.counts("--batch", o.batches, 1, 1 << 16, "sequences together [1; with --train 16]");
  c.strategies(o.strategies)->default_str("every:2 every:4 every:8");
  auto* const repeat =
      c.count("--repeat", o.steps, 1, 1 << 20, "decode or training steps that are timed");
  c.app().add_flag("--prefill", o.prefill, "run the prompt, and time it, instead of the noise");
  auto* const train = c.app().add_flag(
      "--train", o.train, "time the training step instead, and its products by the BLAS alone");
  c.app()
      .add_flag("--paper", o.paper,
                "the contexts and batches of the paper's Tables 4 and 5, prompts timed, and its\n"
                "figures for this shape beside what was measured here")
      ->excludes(contexts)
      ->excludes(batches)
      ->excludes(repeat)
      ->excludes(train);
  c.bytes("--kv-budget", o.kv_budget, "refuse strategies whose K and V take more");
  c.codec(o.codec, "f16; bf16 on a device");
  c.device(o.device);
  c.weights(o.weights);
  c.threads(o.threads);
  c.output("--json", o.json_file, "writes the table here, too");
  c.footer(
      "Examples:\n"
      "  strata-lm bench --shape qwen3-0.6b --context 8192 --strategy every:2 every:4\n"
      "  strata-lm bench --shape demo --context 100000 --batch 4 --kv-budget 300MiB\n"
      "  strata-lm bench --shape qwen3-1.7b --device cuda --prefill --context 2048 8192 --batch 1 16\n"
      "  strata-lm bench --shape qwen3-8b --device cuda --paper --json paper.json\n"
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
  c.codec(o.codec, "f16");
  c.strategies(o.strategies)->default_str("full and all every:K and spread:N");
  c.number("--distance-weight", o.distance_weight, 0, 1000,
           "what it costs to read a layer further below, in the choice among all sets of leaders");
  c.number("--prefill-weight", o.prefill_weight, 0, 1000,
           "what it costs that prompts go through more of the layers");
  c.file("--sensitivities", o.sensitivities,
         "what it costs that a layer does not lead, from `strata-lm sensitivity --json`; it is\n"
         "added to the distance, and the sets of its --greedy are looked through, too");
  c.footer(
      "Of a prompt, the layers above the last leader run only for the row that wants logits: that\n"
      "part of prefill is skipped, and the result is exactly the same.\n"
      "\n"
      "Examples:\n"
      "  strata-lm plan --shape qwen3-8b --budget 512MiB --context 8192\n"
      "  strata-lm plan --shape qwen3-8b --budget 512MiB --context 8192 --prefill-weight 0.3\n"
      "  strata-lm plan --shape llama-3.1-8b --text book.txt --budget 8GiB\n"
      "  strata-lm plan --shape qwen3-8b --strategy groups:12,12,12");
}

/// What is wrong with the arguments, in the program's words where CLI11's help little.
std::string what_is_wrong(CLI::App const& program, CLI::ParseError const& error) {
  auto const given = program.get_subcommands();
  if (given.empty()) {
    std::vector<std::string> names;
    for (auto const* one : program.get_subcommands([](CLI::App const*) { return true; }))
      names.push_back(one->get_name());
    auto const left = program.remaining();
    return (left.empty() ? "a command is missing" : "there is no command " + left.front()) +
           "; there are " + listed(names, " and ");
  }
  std::string unknown;
  for (auto const& word : given.front()->remaining()) unknown += " " + word;
  auto const what = unknown.empty() ? error.what() : "there is no option" + unknown;
  return what + "; `strata-lm " + given.front()->get_name() + " --help` lists what there is";
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
  program.set_version_flag("--version", std::to_string(strata::version_major) + "." +
                                            std::to_string(strata::version_minor) + "." +
                                            std::to_string(strata::version_patch));
  program.footer(program_footer);
  program.get_formatter()->column_width(32);
  add_demo(program);
  add_train_command(program);
  add_eval(program);
  add_generate(program);
  add_answer(program);
  add_bench(program);
  add_plan(program);
  add_study_commands(program);
  add_tokens_command(program);
  add_export_command(program);
  catch_interrupts();
  try {
    program.parse(argc, argv);
    return static_cast<int>(was_interrupted() ? exit_code::interrupted : exit_code::done);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // prints help or the version
    return complain(what_is_wrong(program, error).c_str(), exit_code::wrong_use);
  } catch (failure const& error) {
    return complain(error.what(), error.code());
  } catch (std::bad_alloc const&) {
    return complain("out of memory", exit_code::does_not_fit);
  } catch (std::exception const& error) {
    return complain(error.what(), exit_code::failed);
  }
}

}  // namespace lm
