// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm answer as programs see it.
#include "commanded.hpp"

#include <algorithm>

namespace {

using commanded::contains;
using commanded::contents;
using commanded::read_json;
using commanded::run_program;
using commanded::scratch_folder;

/// Two sets, five questions, each of another length.
void write_questions(std::string const& path) {
  std::string lines;
  for (int i = 0; i < 5; ++i) {
    lm::json_value const q = {{"set", i % 2 == 0 ? "even" : "odd"},
                              {"passages", {"one", commanded::some_text(8 + 5 * i)}},
                              {"question", "which is number " + std::to_string(i) + "?"},
                              {"answers", {"no", "none"}}};
    lines += q.dump() + "\n";
  }
  lm::write_text(path, lines);
}

}  // namespace

TEST_CASE("answer: the report, and the same answers whatever the batch") {
  scratch_folder const folder;
  commanded::write_small_model(folder / "model");
  write_questions(folder / "q");
  for (auto const* const batch : {"1", "3"})
    REQUIRE(run_program({"answer",     "--model",       folder / "model", "--questions",
                         folder / "q", "--strategy",    "full",           "every:2",
                         "--context",  "200",           "--max-tokens",   "6",
                         "--batch",    batch,           "--threads",      "1",
                         "--json",     folder / "json", "--answers",      folder / batch}) == 0);
  CHECK(contents(folder / "1") == contents(folder / "3"));
  CHECK(contains(contents(folder / "1"), "\"line\":5"));
  auto const json = read_json(folder / "json");
  CHECK(json.at("model").at("layers") == 4);
  CHECK(json.at("questions") == 5);
  REQUIRE(json.at("strategies").size() == 2);
  auto const& second = json.at("strategies")[1];
  CHECK(second.at("strategy") == "every:2");
  CHECK(second.at("leaders") == std::vector<int>{0, 2});
  CHECK(second.at("retention") == 0.5);
  CHECK(second.at("all").at("questions") == 5);
  REQUIRE(second.at("sets").size() == 2);
  CHECK(second.at("sets")[0].at("set") == "even");
  CHECK(second.at("sets")[0].at("questions") == 3);
  CHECK(second.at("sets")[1].at("questions") == 2);
  for (auto const* const score : {"f1", "em", "rouge_l"})
    CHECK(second.at("sets")[0].at(score) == 0.0);  // untrained
}

TEST_CASE("answer: a part of the questions") {
  scratch_folder const folder;
  commanded::write_small_model(folder / "model");
  write_questions(folder / "q");
  CHECK(run_program({"answer", "--model", folder / "model", "--questions", folder / "q", "--set",
                     "even", "--limit", "2", "--context", "200", "--max-tokens", "1", "--threads",
                     "1", "--answers", folder / "said"}) == 0);
  auto const said = contents(folder / "said");
  CHECK(contains(said, "number 0?"));
  CHECK(contains(said, "number 2?"));
  CHECK(std::count(said.begin(), said.end(), '\n') == 2);
}

TEST_CASE("answer: what cannot be answered is refused, and says why") {
  scratch_folder const folder;
  commanded::write_small_model(folder / "model");
  write_questions(folder / "q");
  std::vector<std::string> const call = {
      "answer", "--model", folder / "model", "--questions", folder / "q", "--threads", "1"};
  auto const with = [&](std::vector<std::string> const& more) {
    auto all = call;
    all.insert(all.end(), more.begin(), more.end());
    commanded::capture errors(stderr);
    auto const code = run_program(all);
    return std::to_string(code) + " " + errors.text();
  };
  auto const context = with({});  // the model's is 16
  CHECK(contains(context, "3 "));
  CHECK(contains(context, "line 1: its"));
  CHECK(contains(context, "exceed the context of 16"));
  auto const set = with({"--set", "prime"});
  CHECK(contains(set, "2 "));
  CHECK(contains(set, "it has even, odd"));
}
