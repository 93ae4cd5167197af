// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The command line of `strata-lm train`.
#include "train_command.hpp"

#include <CLI/CLI.hpp>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "command.hpp"
#include "failure.hpp"

namespace lm {
namespace {

constexpr char const* about_training =
    "Trains a model on text. In every step each layer draws whose K and V it reads (stochastic KV\n"
    "routing), so that the model can later be served with any layers sharing one cache.";

constexpr char const* footer =
    "Routings R (P is P(self), the probability that a layer reads its own K and V):\n"
    "  self          plain training\n"
    "  rcla:P        R-CLA: itself, or any layer before it\n"
    "  cla:K         fixed groups of K layers, which read their first\n"
    "  rdcla:K:P     itself, or the first of its group\n"
    "  sets:R1,R2    random leader sets that keep these fractions of the layers\n"
    "  mix:S/S/...   in each step one of these serving strategies (see `strata-lm eval --help`)\n"
    "\n"
    "The same arguments give the same bits, whatever the number of threads; those of a device are\n"
    "its own. Norm gains do not decay; all other tensors do. Interrupted (Ctrl-C), the run saves\n"
    "its state and says how to go on.\n"
    "\n"
    "Examples:\n"
    "  strata-lm train --out bible.strata\n"
    "  strata-lm train --text book.txt --hold-out 20 --routing rcla:0.5 --steps 2000 \\\n"
    "    --out b.strata\n"
    "  strata-lm train --text book.txt --routing rcla:0.6 --schedule 1:0.5:0.5 --out b.strata\n"
    "  strata-lm train --text qa.txt --init b.strata --steps 300 --out qa.strata\n"
    "  strata-lm train --resume --out b.strata";

/// Numbers show their default; the sentence that `check` gives says the bound.
template <class T>
CLI::Option* add_number(CLI::App& command, char const* name, T& value, char const* description,
                        char const* group) {
  return command.add_option(name, value, description)
      ->type_name(std::is_integral_v<T> ? "N" : "X")
      ->capture_default_str()
      ->group(group);
}

void add_shape(CLI::App& command, model_config& c) {
  constexpr char const* group = "Shape of the model";
  add_number(command, "--layers", c.layers, "layers", group);
  add_number(command, "--dim", c.dim, "width of the residual stream", group);
  add_number(command, "--q-heads", c.q_heads, "query heads", group);
  add_number(command, "--kv-heads", c.kv_heads, "key and value heads; divides --q-heads", group);
  add_number(command, "--head-dim", c.head_dim, "width of a head; even", group);
  add_number(command, "--mlp", c.mlp, "width of the MLP", group);
  add_number(command, "--rope-theta", c.rope_theta, "base of RoPE's frequencies", group);
  add_number(command, "--window", c.window, "keys a query sees; 0: all", group);
  command.add_flag("--qk-norm", c.qk_norm, "RMSNorm of queries and keys, as in Qwen3")
      ->group(group);
  command
      .add_flag_callback(
          "--untied", [&c] { c.tied = false; }, "an output projection apart from the embedding")
      ->group(group);
}

void add_optimizer(CLI::App& command, training_options& t) {
  auto& o = t.optimizer;
  constexpr char const* group = "Optimizer (AdamW) and dropout";
  add_number(command, "--lr", o.lr, "largest learning rate; with --init 0.0003, of adapters 0.002",
             group);
  add_number(command, "--weight-decay", o.weight_decay, "times the learning rate", group);
  add_number(command, "--beta1", o.beta1, "of the first moment", group);
  add_number(command, "--beta2", o.beta2, "of the second moment", group);
  add_number(command, "--clip", o.clip, "largest norm of the gradient; 0: any", group);
  add_number(command, "--warmup", o.warmup, "fraction of the steps in which lr rises", group);
  add_number(command, "--dropout", t.dropout,
             "share of what attention and MLP read, up to 0.9375, that a step sets to 0 at random; "
             "the rest is scaled up; validation and `strata-lm eval` drop nothing",
             group);
  std::vector<std::pair<std::string, decay_form>> const forms = {{"cosine", decay_form::cosine},
                                                                 {"linear", decay_form::linear}};
  command.add_option("--decay", o.decay, "after that, down to 0: cosine or linear")
      ->transform(one_of(forms))
      ->type_name("FORM")
      ->default_str("cosine")
      ->group(group);
}

void add_routing(CLI::App& command, training_options& t) {
  constexpr char const* group = "Routing";
  command.add_option("--routing", t.routing, "whom layers read; see below")
      ->type_name("R")
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--schedule", t.schedule,
          "P(self): P0 until the fraction `from` of the steps, then P1; without `from`, from P0 "
          "to P1 in a straight line")
      ->type_name("P0:P1[:from]")
      ->group(group);
  command
      .add_option("--depth-schedule", t.depth_schedule,
                  "P(self) from the first layer to the last, in a straight line")
      ->type_name("P0:P1")
      ->group(group);
  add_number(command, "--draws-per-step", t.draws_per_step,
             "split the batch into so many parts, each with a route of its own", group);
  command
      .add_flag("--full-half", t.full_half,
                "the first half of each batch is not routed, the second half is")
      ->group(group);
  add_number(command, "--distill", t.distill,
             "with --full-half: the second half is the first once more, and learns to this share "
             "what the first predicts, to the rest the text",
             group);
  command
      .add_flag("--stop-source-gradient", t.stop_source_gradient,
                "layers send no gradient into K and V of other layers")
      ->group(group);
}

void add_run(CLI::App& command, train_request& r) {
  constexpr char const* group = "Run";
  auto& t = r.training;
  command
      .add_option("--text", t.text,
                  "text files, read as bytes, or as tokens where --init has a tokenizer [the King "
                  "James Bible]")
      ->check(CLI::ExistingFile.description(""))
      ->type_name("FILE...")
      ->group(group);
  command
      .add_option(
          "--out", r.out,
          "the model to write, with what --resume needs: 12 bytes a parameter, with --lora 8")
      ->required()
      ->type_name("FILE")
      ->group(group);
  add_number(command, "--context", t.model.context,
             "tokens of a sequence; with --init 512 where that model is made for more", group);
  add_number(command, "--batch", t.batch, "sequences in a step", group);
  add_number(command, "--steps", t.steps, "optimizer steps", group);
  add_number(command, "--hold-out", t.hold_out,
             "keep every N-th block of 16 KB out of training, for eval; 0: none", group);
  add_number(command, "--seed", t.seed, "of weights, routes, dropout and the order of text", group);
  add_number(command, "--threads", r.threads, "0: as many as the machine has", group)
      ->check(CLI::Range(0, 1024).description(""));
  command.add_option("--device", r.device, "cpu, or cuda: in bf16, sums and masters in float")
      ->transform(one_of(device_names()))
      ->type_name("D")
      ->default_str("cpu")
      ->group(group);
  command
      .add_option(
          "--init", r.init,
          "start from this model, which --out will be as well: a file or a folder of Hugging "
          "Face's")
      ->check(CLI::ExistingPath.description(""))
      ->type_name("MODEL")
      ->group(group);
  command
      .add_option("--adapters", r.adapters,
                  "adapters of --init, as --adapters-out and PEFT write them, to be added to it")
      ->check(CLI::ExistingDirectory.description(""))
      ->type_name("FOLDER")
      ->group(group);
  command
      .add_flag("--weights-only", r.weights_only,
                "leave out of --out what --resume needs: 4 bytes a parameter")
      ->group(group);
  command.add_flag("--resume", r.resume, "go on with the interrupted run in --out")->group(group);
  add_number(command, "--save-every", r.save_every, "steps between saves; 0: at the end only",
             group)
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40).description(""));
  command.add_option("--log", r.log, "a JSON line for each step: loss, lr, norm, time, route")
      ->type_name("FILE")
      ->group(group);
}

void add_fine_tuning(CLI::App& command, train_request& r) {
  constexpr char const* group = "Fine-tuning";
  auto& t = r.training;
  command
      .add_option(
          "--questions", t.questions,
          "questions with passages and answers, as `strata-lm answer` reads them, instead of "
          "--text; the question comes before its passages with probability 1/2, and they in "
          "one of three orders")
      ->check(CLI::ExistingFile.description(""))
      ->type_name("FILE")
      ->group(group);
  command
      .add_flag("--answers-only", t.answers_only,
                "only the tokens of answers count; else those of the passages as well")
      ->group(group);
  add_number(command, "--lora", t.lora,
             "train adapters of this rank beside all matrices but the embedding, and nothing else; "
             "--out gets their sum; 0: all weights",
             group);
  command
      .add_option("--adapters-out", r.adapters_out,
                  "with --lora and --init: writes the adapters alone here, too, as Hugging Face's "
                  "PEFT reads them; made where there is none")
      ->type_name("FOLDER")
      ->group(group);
}

void add_validation(CLI::App& command, train_request& r) {
  constexpr char const* group = "Validation";
  command
      .add_option("--validate", r.validate,
                  "strategies under which to score what --hold-out keeps, at the end, in --log; "
                  "see `strata-lm eval --help`")
      ->type_name("S...")
      ->group(group);
  add_number(command, "--validate-every", r.validate_every, "and every so many steps", group)
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40).description(""));
  add_number(command, "--validate-tokens", r.validate_tokens, "of what is held out", group)
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40).description(""));
}

/// Throws where an option was given that another one rules out.
void require_absent(CLI::App const& command, std::initializer_list<char const*> names,
                    std::string const& why) {
  for (auto const* name : names)
    if (command.count(name) > 0)
      throw failure(std::string(name) + " cannot be given: " + why, exit_code::wrong_use);
}

/// A resumed run takes its arguments from the file, a run with --init its shape.
void check_together(CLI::App const& command, train_request const& r) {
  auto const shape = {"--layers", "--dim",        "--q-heads", "--kv-heads", "--head-dim",
                      "--mlp",    "--rope-theta", "--window",  "--qk-norm",  "--untied"};
  if (!r.init.empty()) require_absent(command, shape, "the shape is that of --init");
  if (r.init.empty()) require_absent(command, {"--adapters"}, "they are added to --init");
  if (!r.adapters.empty())
    require_absent(
        command, {"--adapters-out"},
        "what is trained belongs to the sum of --init and --adapters, which no file has; "
        "export it first");
  if (!r.training.questions.empty())
    require_absent(command, {"--text", "--hold-out"}, "--questions takes their place");
  if (!r.validate.empty() && !r.resume && r.training.hold_out == 0)
    throw failure("--validate scores what is held out; give --hold-out N with a text",
                  exit_code::wrong_use);
  if (!r.resume) return;
  std::string const why = "--resume goes on with the arguments that the run began with";
  require_absent(command, shape, why);
  require_absent(command,
                 {"--init",
                  "--context",
                  "--batch",
                  "--steps",
                  "--hold-out",
                  "--seed",
                  "--lr",
                  "--weight-decay",
                  "--beta1",
                  "--beta2",
                  "--clip",
                  "--warmup",
                  "--decay",
                  "--dropout",
                  "--routing",
                  "--schedule",
                  "--depth-schedule",
                  "--draws-per-step",
                  "--stop-source-gradient",
                  "--full-half",
                  "--distill",
                  "--questions",
                  "--answers-only",
                  "--lora"},
                 why);
}

}  // namespace

void add_train_command(CLI::App& program) {
  auto& command = *program.add_subcommand("train", about_training);
  auto const request = std::make_shared<train_request>();
  add_run(command, *request);
  add_fine_tuning(command, *request);
  add_validation(command, *request);
  add_routing(command, request->training);
  add_optimizer(command, request->training);
  add_shape(command, request->training.model);
  command.footer(footer);
  command.callback([&command, request] {
    require_built_for(request->device);
    check_together(command, *request);
    request->given_context = command.count("--context") > 0;
    auto& o = request->training;
    if (!request->init.empty() && command.count("--lr") == 0)
      o.optimizer.lr = o.lora > 0 ? 2e-3 : 3e-4;
    if (auto const wrong = request->training.check(); !wrong.empty() && request->init.empty())
      throw failure(wrong, exit_code::wrong_use);
    run_train(*request);
  });
}

}  // namespace lm
