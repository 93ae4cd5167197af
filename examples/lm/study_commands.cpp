// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The options of the commands that measure what a cache may lose: bits, shrink and sensitivity.
#include "study_commands.hpp"

#include <CLI/CLI.hpp>

#include "command.hpp"
#include "commands.hpp"

namespace lm {
namespace {

void add_bits(CLI::App& program) {
  command<bits_options> c(
      program, "bits",
      "Depth x bits: for each strategy and each codec of K and V the loss of a text, and how far\n"
      "(Kullback-Leibler divergence) predictions lie from those of the same strategy in f32, and\n"
      "from those of full in f32. Beside them models that keep as few bytes by other means.",
      run_bits);
  auto& o = c.options();
  c.trained_model(o.model);
  c.app()
      .add_option("--beside", o.beside, "further models, at full depth and with the same codecs")
      ->check(CLI::ExistingPath.description(""))
      ->type_name("FILE...");
  c.scored_text(true);
  c.strategies(o.strategies);
  c.app()
      .add_option("--codec", o.codecs, codec_help() + "; f32 is always among them [all]")
      ->transform(one_of(codec_names()))
      ->type_name("C...");
  c.threads(o.threads);
  c.output("--json", o.json_file, "writes all cells here, too");
  c.output("--picture", o.picture, "a heat map of the model's cells, .svg");
  c.footer(
      "+- are standard errors over windows: of the text, not of training once more.\n"
      "\n"
      "Examples:\n"
      "  strata-lm bits --model book.strata --text book.txt --hold-out 20 --picture bits.svg\n"
      "  strata-lm bits --model routed.strata --beside plain.strata shallow.strata --codec int8");
}

void add_shrink(CLI::App& program) {
  command<shrink_options> c(
      program, "shrink",
      "What the second half of texts loses where the cache gives up leaders in the middle: beside\n"
      "keeping them, and beside having begun without. Once by shrinking a live sequence, once by\n"
      "taking over (reuse::subset) what another one cached. For all pairs of strategies of which\n"
      "one keeps a part of the other's leaders.",
      run_shrink);
  auto& o = c.options();
  c.app()
      .add_option("--model", o.models, "models, each as `strata-lm eval` takes one")
      ->check(CLI::ExistingPath.description(""))
      ->type_name("FILE...")
      ->required();
  c.scored_text(false);
  c.strategies(o.strategies);
  c.count("--block-size", o.block_size, 1, 1 << 16, "tokens of a block of the cache");
  c.threads(o.threads);
  c.output("--json", o.json_file, "writes the table here, too");
  c.footer(
      "Examples:\n"
      "  strata-lm shrink --model routed.strata plain.strata --text book.txt --hold-out 20");
}

void add_sensitivity(CLI::App& program) {
  command<sensitivity_options> c(
      program, "sensitivity",
      "What each leader is worth: the loss of a text when that one alone is removed and its\n"
      "readers read the nearest leader before it. `strata-lm plan --sensitivities` takes the\n"
      "file and chooses leaders by it.",
      run_sensitivity);
  auto& o = c.options();
  c.trained_model(o.model);
  c.adapters(o.adapters);
  c.scored_text(true);
  c.words("--strategy", o.strategy, "S", "whose leaders are removed; see below");
  c.app().add_flag("--greedy", o.greedy,
                   "go on, each time without the leader that costs least, until one is left");
  c.codec(o.codec, "f32; bf16 on a device");
  c.device(o.device);
  c.threads(o.threads);
  c.output("--json", o.json_file, "what --sensitivities of `strata-lm plan` reads");
  c.footer(
      "cost: loss less that of the strategy itself, with its standard error over windows. The\n"
      "first leader stays: nobody could take its readers.\n"
      "\n"
      "Examples:\n"
      "  strata-lm sensitivity --model book.strata --text book.txt --hold-out 20 --json costs.json\n"
      "  strata-lm plan --model book.strata --budget 64KiB --sensitivities costs.json");
}

}  // namespace

void add_study_commands(CLI::App& program) {
  add_bits(program);
  add_shrink(program);
  add_sensitivity(program);
}

}  // namespace lm
