// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Questions as training sees them, in tokens that are bytes.
#include <doctest/doctest.h>

#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "lm/tiny_files.hpp"
#include "question_data.hpp"

namespace {

constexpr char const* two_questions =
    R"({"set":"a","passages":["one","two","three"],"question":"which?","answers":["two"]})"
    "\n"
    R"({"set":"b","passages":["four"],"question":"who?","answers":["five","six"]})"
    "\n";

struct drawn {
  std::string inputs, counted;  // the tokens, and those that targets name
};

drawn draw(lm::question_data const& data, std::uint64_t step, std::int32_t context = 80) {
  std::vector<std::int32_t> inputs(static_cast<std::size_t>(context), 7), targets(inputs);
  auto const rows = data.fill({5, step}, inputs, targets);
  drawn out;
  for (std::int32_t i = 0; i < context; ++i) {
    auto const at = static_cast<std::size_t>(i);
    if (i < rows) out.inputs += static_cast<char>(inputs[at]);
    if (i >= rows) CHECK(inputs[at] == 0);
    if (i >= rows) CHECK(targets[at] == lm::no_target);
    if (targets[at] == lm::no_target) continue;
    out.counted += static_cast<char>(targets[at]);
    if (i + 1 < rows) CHECK(targets[at] == inputs[at + 1]);
  }
  return out;
}

}  // namespace

TEST_CASE(
    "questions for training: every form of the prompt comes and the targets are what follows") {
  tiny::scratch_file const file("questions.jsonl");
  std::ofstream(file.path()) << two_questions;
  lm::question_data const all(file.path(), {}, 80, false), answers(file.path(), {}, 80, true);
  CHECK(all.count() == 2);
  std::set<std::string> seen, taught;
  for (std::uint64_t step = 0; step < 200; ++step) {
    auto const a = draw(all, step), b = draw(answers, step);
    CHECK(a.inputs == b.inputs);
    CHECK(a.inputs + "\n" == a.inputs.substr(0, 1) + a.counted);
    CHECK(a.inputs == draw(all, step).inputs);
    seen.insert(a.inputs);
    taught.insert(b.counted);
  }
  CHECK(taught == std::set<std::string>{" two\n", " five\n"});
  CHECK(seen.contains("Context: one\ntwo\nthree\nQuestion: which?\nAnswer: two"));
  CHECK(seen.contains("Question: which?\nContext: one\ntwo\nthree\nAnswer: two"));
  CHECK(seen.contains("Context: four\nQuestion: who?\nAnswer: five"));
  CHECK(seen.contains("Question: who?\nContext: four\nAnswer: five"));
  CHECK(seen.size() > 4);  // other orders of three passages
  CHECK(seen.size() <= 8);
}

TEST_CASE("questions for training: one that does not fit is named with its line") {
  tiny::scratch_file const file("questions.jsonl");
  std::ofstream(file.path()) << two_questions;
  CHECK_NOTHROW(lm::question_data(file.path(), {}, 51, false));
  CHECK_THROWS_WITH_AS(lm::question_data(file.path(), {}, 50, false),
                       doctest::Contains("line 1: takes 52 tokens with its answer; --context 50"),
                       lm::failure);
}
