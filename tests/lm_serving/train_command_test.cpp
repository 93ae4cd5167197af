// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm train: what it leaves in its files, and how a run goes on.
#include "commanded.hpp"

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "interrupter.hpp"

using namespace commanded;

namespace {

using argument_list = std::vector<std::string>;

argument_list operator+(argument_list list, argument_list const& more) {
  list.insert(list.end(), more.begin(), more.end());
  return list;
}

/// A run of a few milliseconds.
argument_list small_run(scratch_folder const& folder, std::string const& out,
                        char const* steps = "8") {
  return {"train",     "--text",     folder / "text",
          "--out",     out,          "--layers",
          "4",         "--dim",      "16",
          "--q-heads", "2",          "--kv-heads",
          "1",         "--head-dim", "16",
          "--mlp",     "24",         "--context",
          "16",        "--batch",    "2",
          "--steps",   steps,        "--threads",
          "1"};
}

/// Runs what must succeed; what it said.
std::string train(argument_list const& arguments) {
  capture news(stderr);
  auto const code = run_program(arguments);
  auto const said = news.text();
  INFO(said);
  CHECK(code == 0);
  return said;
}

bool same_weights(std::string const& a, std::string const& b) {
  auto const one = lm::load_checkpoint(a), two = lm::load_checkpoint(b);
  return std::ranges::equal(one.weights.values(), two.weights.values());
}

}  // namespace

TEST_CASE("train: a model, and a line of the log for each step") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  auto const said =
      train(small_run(folder, folder / "model") +
            argument_list{"--log", folder / "log", "--routing", "rcla:0", "--draws-per-step", "2"});
  CHECK(contains(said, "4 layers x 16"));
  CHECK(contains(said, "routing rcla:0; 8 steps of 2 x 16 tokens, 1 threads"));
  CHECK(contains(said, "saved " + (folder / "model") + " after step 8"));
  auto const saved = lm::load_checkpoint(folder / "model");
  CHECK(saved.weights.config() == small_shape());
  CHECK(saved.training.at("step") == 8);
  CHECK(saved.optimizer.has_value());

  std::istringstream lines(contents(folder / "log"));
  int steps = 0;
  for (std::string line; std::getline(lines, line); ++steps) {
    auto const json = lm::json_value::parse(line);
    CHECK(json.at("step") == steps);
    CHECK(json.at("loss") > 1.0);
    CHECK(json.at("gradient_norm") > 0.0);
    CHECK(json.at("tokens") == 32);
    REQUIRE(json.at("sources").size() == 2);  // a route per draw
    for (auto const& route : json.at("sources")) {
      REQUIRE(route.size() == 4);
      CHECK(route[0] == 0);
      for (int l = 1; l < 4; ++l) CHECK(route[static_cast<std::size_t>(l)] < l);  // never itself
    }
  }
  CHECK(steps == 8);
}

TEST_CASE("train: stopped after a save and resumed, the run ends as if never stopped") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  train(small_run(folder, folder / "straight", "400"));
  {
    interrupter const stop(folder / "stopped");  // which --save-every writes first
    capture news(stderr);
    CHECK(run_program(small_run(folder, folder / "stopped", "400") +
                      argument_list{"--save-every", "20", "--log", folder / "log"}) == 130);
    CHECK(stop.saw_the_file());
    CHECK(contains(news.text(),
                   "go on with: strata-lm train --resume --out " + (folder / "stopped")));
  }
  auto const step = lm::load_checkpoint(folder / "stopped").training.at("step").get<int>();
  CHECK(step >= 20);
  CHECK(step < 400);
  train({"train", "--resume", "--out", folder / "stopped", "--log", folder / "log"});
  CHECK(same_weights(folder / "stopped", folder / "straight"));
  std::istringstream lines(contents(folder / "log"));
  int steps = 0;
  for (std::string line; std::getline(lines, line); ++steps)
    CHECK(lm::json_value::parse(line).at("step") == steps);
  CHECK(steps == 400);
}

TEST_CASE("train: interrupted before its first step, it saves what it began with") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  {
    interrupted_now const stop;
    capture news(stderr);
    CHECK(run_program(small_run(folder, folder / "model")) == 130);
  }
  CHECK(lm::load_checkpoint(folder / "model").training.at("step") == 0);
  train({"train", "--resume", "--out", folder / "model"});
  train(small_run(folder, folder / "straight"));
  CHECK(same_weights(folder / "model", folder / "straight"));
}

TEST_CASE("train: a resumed run remembers where its text has moved") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  {
    interrupted_now const stop;
    capture news(stderr);
    CHECK(run_program(small_run(folder, folder / "model")) == 130);
  }
  std::filesystem::rename(folder / "text", folder / "moved");
  capture complaint(stderr);
  CHECK(run_program({"train", "--resume", "--out", folder / "model"}) == 1);
  CHECK(contains(complaint.text(), (folder / "text") + ": No such file"));
  train({"train", "--resume", "--out", folder / "model", "--text", folder / "moved"});
  auto const saved = lm::load_checkpoint(folder / "model").training;
  CHECK(saved.at("step") == 8);
  CHECK(saved.at("arguments").at("text") == argument_list{folder / "moved"});
  train({"train", "--resume", "--out", folder / "model"});  // nothing left to do, and no --text
}

TEST_CASE("train: --init takes the weights, the shape and the context, unless one is given") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  write_small_model(folder / "first");  // of context 16
  auto const from = [&](argument_list const& more) {
    train(argument_list{"train", "--text", folder / "text", "--init", folder / "first", "--out",
                        folder / "next", "--steps", "1", "--batch", "2", "--lr", "0", "--threads",
                        "1"} +
          more);
    return lm::load_config(folder / "next");
  };
  CHECK(from({}) == small_shape());
  CHECK(same_weights(folder / "next", folder / "first"));  // at --lr 0 nothing moves
  auto longer = small_shape();
  longer.context = 40;
  CHECK(from({"--context", "40"}) == longer);
}

TEST_CASE("train: a log that cannot be written ends it before the first step") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  auto const log = folder / "missing/log";
  capture complaint(stderr);
  CHECK(run_program(small_run(folder, folder / "model") + argument_list{"--log", log}) == 1);
  CHECK(contains(complaint.text(), "--log " + log + ": cannot be written"));
  CHECK(folder.entries() == 1);  // the text
}

TEST_CASE("train: what is held out is scored as eval scores it") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(32768));  // the second block of 16 KB is held out
  train(small_run(folder, folder / "model") +
        argument_list{"--hold-out", "2", "--log", folder / "log", "--validate", "full", "every:2",
                      "--validate-tokens", "1000000", "--validate-every", "4"});
  std::istringstream lines(contents(folder / "log"));
  std::vector<lm::json_value> found;
  for (std::string line; std::getline(lines, line);)
    if (auto json = lm::json_value::parse(line); json.contains("validation"))
      found.push_back(std::move(json));
  REQUIRE(found.size() == 2);
  CHECK(found[0].at("step") == 4);
  CHECK(found[1].at("step") == 8);
  CHECK(found[1].at("validation")[0].at("tokens") == 1023 * 16);  // less what fills no window
  {
    capture table(stdout);
    capture news(stderr);
    REQUIRE(run_program({"eval", "--model", folder / "model", "--text", folder / "text",
                         "--hold-out", "2", "--stride", "16", "--strategy", "full", "every:2",
                         "--json", folder / "eval"}) == 0);
  }
  auto const scored = read_json(folder / "eval").at("strategies");
  for (std::size_t i = 0; i < 2; ++i) {
    auto const& mine = found[1].at("validation")[i];
    CHECK(mine.at("strategy") == scored[i].at("strategy"));
    CHECK(mine.at("loss").get<double>() ==
          doctest::Approx(scored[i].at("loss").get<double>()).epsilon(2e-3));
  }
  CHECK(found[1].at("validation")[0].at("loss") < found[0].at("validation")[0].at("loss"));
  capture complaint(stderr);
  CHECK(run_program(small_run(folder, folder / "other") + argument_list{"--validate", "full"}) ==
        2);
  CHECK(contains(complaint.text(), "give --hold-out N"));
}

TEST_CASE("train: a finished model learns answers and its file has no more than its weights") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  train(small_run(folder, folder / "model"));
  lm::write_text(folder / "questions",
                 "{\"set\": \"a\", \"passages\": [\"it is red\", \"it was blue\"], "
                 "\"question\": \"how is it?\", \"answers\": [\"red\"]}\n");
  argument_list const asked = {"train",
                               "--init",
                               folder / "model",
                               "--questions",
                               folder / "questions",
                               "--context",
                               "80",
                               "--batch",
                               "2",
                               "--steps",
                               "30",
                               "--lr",
                               "0.01",
                               "--clip",
                               "1",
                               "--answers-only",
                               "--weights-only",
                               "--out",
                               folder / "taught",
                               "--log",
                               folder / "log"};
  auto const said = train(asked);
  CHECK(contains(said, "bytes of questions, of which answers count"));
  auto const saved = lm::load_checkpoint(folder / "taught");
  CHECK(!saved.optimizer.has_value());
  CHECK(saved.weights.config().context == 80);
  CHECK(saved.training.at("arguments").at("answers_only") == true);
  std::istringstream lines(contents(folder / "log"));
  std::vector<double> losses;
  for (std::string line; std::getline(lines, line);)
    losses.push_back(lm::json_value::parse(line).at("loss"));
  CHECK(losses.back() < losses.front() - 1);
  capture complaint(stderr);
  CHECK(run_program(asked + argument_list{"--text", folder / "text"}) == 2);
  CHECK(contains(complaint.text(), "--text cannot be given: --questions takes their place"));
}

TEST_CASE("train: what a model is made for stays, whatever sequences it is trained on") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(3000));
  write_small_model(folder / "model");  // for 16 tokens
  auto const trained = [&](argument_list const& more) {
    train(argument_list{"train", "--text", folder / "text", "--init", folder / "model", "--out",
                        folder / "more", "--steps", "2", "--batch", "2"} +
          more);
    return lm::load_checkpoint(folder / "more");
  };
  auto const context = [](lm::checkpoint const& c) { return c.weights.config().context; };
  auto const argument = [](lm::checkpoint const& c, char const* name) {
    return c.training.at("arguments").at(name);
  };
  auto const shorter = trained({"--context", "8"});
  CHECK(context(shorter) == 16);
  CHECK(argument(shorter, "length") == 8);
  CHECK(argument(shorter, "lr") == 3e-4);
  CHECK(context(trained({"--context", "24"})) == 24);
  {
    capture news(stderr);
    CHECK(run_program({"train", "--text", folder / "text", "--init", folder / "model", "--out",
                       folder / "more", "--context", "0"}) == 2);
    CHECK(contains(news.text(), "--context is 0; it must lie between 1 and "));
  }
  auto const unsaid = trained({"--lora", "2"});
  CHECK(context(unsaid) == 16);
  CHECK(argument(unsaid, "length") == 16);
  CHECK(argument(unsaid, "lr") == 2e-3);
  CHECK(argument(trained({"--lr", "0.01"}), "lr") == 0.01);
  // A run on sequences that are shorter goes on like any other.
  trained({"--context", "8"});
  {
    interrupted_now const stop;
    capture news(stderr);
    CHECK(run_program({"train", "--text", folder / "text", "--init", folder / "model", "--out",
                       folder / "stopped", "--steps", "2", "--batch", "2", "--context", "8"}) ==
          130);
  }
  train({"train", "--resume", "--out", folder / "stopped"});
  CHECK(same_weights(folder / "stopped", folder / "more"));
}
