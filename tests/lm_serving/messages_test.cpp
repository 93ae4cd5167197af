// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A wrong argument: stderr names it and says what would have been allowed.
#include <string>
#include <vector>

#include "commanded.hpp"

using namespace commanded;

namespace {

/// What the program says of arguments that it refuses as wrong use.
std::string complaint(std::vector<std::string> const& arguments) {
  capture errors(stderr);
  auto const code = run_program(arguments);
  auto const said = errors.text();
  INFO(said);
  CHECK(code == 2);
  return said;
}

void check_says(std::vector<std::string> const& arguments, std::vector<std::string> const& parts) {
  auto const said = complaint(arguments);
  INFO(said);
  for (auto const& part : parts) {
    CAPTURE(part);
    CHECK(contains(said, part));
  }
}

}  // namespace

TEST_CASE("messages: numbers out of their bounds") {
  check_says({"demo", "--minutes", "0"}, {"--minutes", "0.2", "10080"});
  check_says({"demo", "--steps", "0"}, {"--steps", "1", "16777216"});
  check_says({"demo", "--eval-bytes", "-1"}, {"--eval-bytes", "-1"});
  check_says({"plan", "--shape", "demo", "--batch", "0"}, {"--batch", "1", "1048576"});
  check_says({"plan", "--shape", "demo", "--budget", "12q"}, {"--budget", "12q", "1.5GiB"});
  check_says({"bench", "--shape", "demo", "--threads", "1025"}, {"--threads", "1024"});
  check_says({"train", "--out", "m", "--layers", "257"},
             {"--layers is 257; it must lie between 1 and 256"});
  check_says({"train", "--out", "m", "--q-heads", "4", "--kv-heads", "3"},
             {"--kv-heads is 3; it must divide --q-heads, 4"});
  check_says({"train", "--out", "m", "--hold-out", "1"},
             {"--hold-out is 1; it must be 0 or from 2"});
  check_says({"train", "--out", "m", "--beta2", "1"},
             {"--beta2 is 1; it must be from 0 on and below 1"});
  check_says({"train", "--out", "m", "--draws-per-step", "17"},
             {"--draws-per-step is 17; it must lie between 1 and 16"});
}

TEST_CASE("messages: words that are none of the list") {
  check_says({"plan", "--shape", "gpt"}, {"--shape", "gpt", "qwen3-8b", "demo"});
  check_says({"plan", "--shape", "demo", "--codec", "f64"}, {"--codec", "f64", "bf16"});
  check_says({"train", "--out", "m", "--decay", "square"}, {"--decay", "cosine", "linear"});
  check_says({"plan", "--shape", "demo", "--strategy", "every:x"},
             {"--strategy", "  every:x\n        ^"});
  check_says({"plan", "--shape", "demo", "--codec", "3"}, {"--codec", "'3' is none of f32, "});
  check_says({"plan", "--shape", "demo", "--wings", "2"},
             {"strata-lm: there is no option --wings 2; `strata-lm plan --help`"});
  check_says({"plan", "--shape", "demo", "--bytes-per-token", "nan"},
             {"--bytes-per-token", "nan is not finite"});
  check_says({"fly"}, {"no command fly", "train", "generate"});
  check_says({}, {"strata-lm: a command is missing", "demo, train", "tokens and export"});
  capture output(stdout);
  CHECK(run_program({"--version"}) == 0);
  CHECK(output.text() == "0.1.0\n");
}

TEST_CASE("messages: a device that is not there") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  std::vector<std::vector<std::string>> const commands = {
      {"eval", "--model", folder / "model"},
      {"generate", "--model", folder / "model", "--prompt", "x"},
      {"bench", "--shape", "demo"}};
  for (auto command : commands) {
    command.insert(command.end(), {"--device", "cuda"});
    capture errors(stderr);
    auto const code = run_program(command);
    auto const said = errors.text();
    INFO(said);
    if (code == 0) continue;  // there is one
    bool const built_without = contains(said, "--device cuda: this strata-lm was built without");
    CHECK(code == (built_without ? 2 : 1));
    CHECK((built_without || contains(said, "CUDA")));
  }
  check_says({"eval", "--model", folder / "model", "--device", "tpu"}, {"--device", "tpu", "cuda"});
}

TEST_CASE("messages: what is missing, and what cannot go together") {
  check_says({"train"}, {"--out"});
  check_says({"generate", "--prompt", "x"}, {"--model"});
  check_says({"plan"}, {"--model", "--shape"});
  check_says({"eval", "--model", "/nonexistent"}, {"--model", "/nonexistent"});
  check_says({"demo", "--seeds", "2"}, {"--seeds needs --study"});
  check_says({"train", "--resume", "--out", "m", "--steps", "5"},
             {"--steps cannot be given: --resume goes on with the arguments"});
  check_says({"bench", "--shape", "demo", "--train", "--batch", "1", "4"},
             {"--train takes one --context and one --batch"});
  check_says({"bench", "--shape", "demo", "--paper", "--context", "512"}, {"--paper", "--context"});
  check_says({"bench", "--shape", "demo", "--context", "512", "0"}, {"--context", "1"});
  scratch_folder const folder;
  write_small_model(folder / "model");
  check_says({"train", "--out", folder / "new", "--init", folder / "model", "--dim", "8"},
             {"--dim cannot be given: the shape is that of --init"});
  check_says({"eval", "--model", folder / "model", "--text", folder / "model", "--stride", "17"},
             {"--stride is 17; it must be at most --context, 16"});
}
