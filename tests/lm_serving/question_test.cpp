// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Questions from files, and the text in which a model sees them.
#include "question.hpp"

#include <doctest/doctest.h>

#include "failure.hpp"
#include "lm/tiny_files.hpp"
#include "output_file.hpp"

namespace {

std::string refusal_of(std::string const& content) {
  tiny::scratch_file const file("q.jsonl");
  lm::write_text(file.path(), content);
  try {
    lm::read_questions(file.path());
  } catch (lm::failure const& refused) {
    return refused.what();
  }
  return "nothing";
}

constexpr char const* good =
    "{\"set\": \"s\", \"passages\": [\"p0\", \"p1\"], \"question\": \"why?\", \"answers\": "
    "[\"so\", \"thus\"]}\n";

}  // namespace

TEST_CASE("read_questions: all fields of every line") {
  tiny::scratch_file const file("q.jsonl");
  lm::write_text(file.path(), std::string(good) +
                                  "{\"answers\": [\"no\"], \"question\": \"or \\\"b\\\"?\", "
                                  "\"passages\": [\"p\"], \"set\": \"t\"}");
  auto const read = lm::read_questions(file.path());
  REQUIRE(read.size() == 2);
  CHECK(read[0].set == "s");
  CHECK(read[0].passages == std::vector<std::string>{"p0", "p1"});
  CHECK(read[0].text == "why?");
  CHECK(read[0].answers == std::vector<std::string>{"so", "thus"});
  CHECK(read[0].line == 1);
  CHECK(read[1].set == "t");
  CHECK(read[1].text == "or \"b\"?");
  CHECK(read[1].line == 2);
}

TEST_CASE("read_questions: what is no question is refused with its line and field") {
  struct {
    char const* line;
    char const* says;
  } const cases[] = {
      {"{\"set\": \"s\"", "q.jsonl, line 2 is no JSON"},
      {"[]", "q.jsonl, line 2 is '[]'; it must be an object"},
      {"", "q.jsonl, line 2 is empty"},
      {"{\"passages\": [\"p\"], \"question\": \"q\", \"answers\": [\"a\"]}",
       "line 2.set is 'null'"},
      {"{\"set\": \"s\", \"passages\": \"p\", \"question\": \"q\", \"answers\": [\"a\"]}",
       "line 2.passages is '\"p\"'"},
      {"{\"set\": \"s\", \"passages\": [], \"question\": \"q\", \"answers\": [\"a\"]}",
       "line 2.passages is '[]'"},
      {"{\"set\": \"s\", \"passages\": [\"p\", 3], \"question\": \"q\", \"answers\": [\"a\"]}",
       "line 2.passages[1] is '3'"},
      {"{\"set\": \"s\", \"passages\": [\"p\"], \"question\": \" \", \"answers\": [\"a\"]}",
       "line 2.question is '\" \"'"},
      {"{\"set\": \"s\", \"passages\": [\"p\"], \"question\": \"q\", \"answers\": [\"a\\nb\"]}",
       "of one line"},
      {"{\"set\": \"s\", \"passages\": [\"p\"], \"question\": \"q\", \"answers\": []}",
       "line 2.answers is '[]'"},
      {"{\"set\": \"s\", \"passages\": [\"p\"], \"question\": \"q\", \"answer\": \"a\"}",
       "has the field 'answer'"},
  };
  for (auto const& c : cases) {
    auto const said = refusal_of(good + std::string(c.line) + "\n" + good);
    INFO(said);
    CHECK(said.find(c.says) != std::string::npos);
  }
  CHECK(refusal_of("").find("is empty") != std::string::npos);
}

TEST_CASE("prompt_text: both orders, and the passages permuted") {
  lm::question const q{"s", {"p0", "p1", "p2"}, "why?", {"so", "thus"}};
  CHECK(lm::prompt_text(q, false, {}) == "Context: p0\np1\np2\nQuestion: why?\nAnswer:");
  std::vector<std::int32_t> const order = {2, 0, 1};
  CHECK(lm::prompt_text(q, true, order) == "Question: why?\nContext: p2\np0\np1\nAnswer:");
  CHECK(lm::answer_text(q) == " so");
  std::vector<std::vector<std::int32_t>> const wrong = {{0, 1}, {0, 1, 1}, {0, 1, 3}, {-1, 0, 1}};
  for (auto const& one : wrong) CHECK_THROWS_AS(lm::prompt_text(q, false, one), lm::failure);
}
