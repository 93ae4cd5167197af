// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm plan: its table, and the context of a text.
#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "commanded.hpp"
#include "commands.hpp"

using namespace commanded;

namespace {

std::string plan(lm::plan_options const& o) {
  capture output(stdout);
  lm::run_plan(o);
  return output.text();
}

/// A line of the table, its columns: two spaces or more lie between them.
std::vector<std::string> columns(std::string const& line) {
  std::vector<std::string> cells;
  for (auto at = line.find_first_not_of(' '); at != std::string::npos;) {
    auto const end = std::min(line.find("  ", at), line.size());
    cells.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(' ', end);
  }
  return cells;
}

/// The rows of the table: those with a share of prefill.
std::vector<std::vector<std::string>> rows(std::string const& text) {
  std::vector<std::vector<std::string>> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (auto cells = columns(line); cells.size() >= 6 && cells[5].ends_with("%"))
      out.push_back(std::move(cells));
  return out;
}

lm::plan_options of(char const* shape) {
  lm::plan_options o;
  o.model.shape = shape;
  return o;
}

}  // namespace

TEST_CASE("plan: a line per set of leaders, by all its names, most leaders first") {
  auto const table = rows(plan(of("demo")));  // 8 layers
  struct expected {
    char const *strategy, *leaders, *retention, *skipped;
  };
  expected const lines[] = {{"full", "0,1,2,3,... (8)", "100.0 %", "0.0 %"},
                            {"spread:7", "0,1,2,3,... (7)", "87.5 %", "12.5 %"},
                            {"spread:6", "0,1,2,4,... (6)", "75.0 %", "12.5 %"},
                            {"spread:5", "0,1,3,4,... (5)", "62.5 %", "12.5 %"},
                            {"every:2, spread:4", "0,2,4,6", "50.0 %", "12.5 %"},
                            {"every:3", "0,3,6", "37.5 %", "12.5 %"},
                            {"spread:3", "0,2,5", "37.5 %", "25.0 %"},
                            {"every:4, spread:2", "0,4", "25.0 %", "37.5 %"},
                            {"every:5", "0,5", "25.0 %", "25.0 %"},
                            {"every:6", "0,6", "25.0 %", "12.5 %"},
                            {"every:7", "0,7", "25.0 %", "0.0 %"},
                            {"every:8, spread:1", "0", "12.5 %", "87.5 %"}};
  REQUIRE(table.size() == std::size(lines));
  for (std::size_t i = 0; i < table.size(); ++i) {
    CAPTURE(lines[i].strategy);
    CHECK(table[i][0] == lines[i].strategy);
    CHECK(table[i][1] == lines[i].leaders);
    CHECK(table[i][2] == lines[i].retention);
    CHECK(table[i][5] == lines[i].skipped);
  }
}

TEST_CASE("plan: of many layers every strategy is named once, in order of its bytes") {
  auto const table = rows(plan(of("qwen3-8b")));
  std::string names;
  double last = 100;
  for (auto const& row : table) {
    names += row[0] + ", ";
    auto const retention = std::stod(row[2]);
    CHECK(retention <= last);
    last = retention;
  }
  for (int i = 1; i <= 36; ++i) {
    if (i > 1) CHECK(contains(", " + names, ", every:" + std::to_string(i) + ", "));
    if (i < 36) CHECK(contains(", " + names, ", spread:" + std::to_string(i) + ", "));
  }
  CHECK(std::ranges::count(names, ':') == 35 + 35);
}

TEST_CASE("plan: of what fits a budget, the most, and of equals what skips most of prefill") {
  auto o = of("demo");
  o.context = 1024;
  o.budget = 2 * 2 * 64 * 2 * 1024;  // two layers of K and V, 64 16-bit numbers a token
  auto const text = plan(o);
  CHECK(contains(text, "\nevery:4, spread:2, the most that fits:\n"));
  for (auto const& row : rows(text)) {
    CAPTURE(row[0]);
    REQUIRE(row.size() == 9);
    CHECK(row[6] == (std::stod(row[2]) <= 25 ? "yes" : "no"));
  }
  o.budget = 1000;
  capture output(stdout);
  CHECK_THROWS_WITH_AS(lm::run_plan(o),
                       doctest::Contains("every:8, spread:1, the smallest, needs 262 144 bytes"),
                       lm::failure);
}

TEST_CASE("plan: --text plans for a context that holds a file") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(4100));
  auto o = of("demo");
  o.strategies = {"full"};
  o.text = folder / "text";
  auto const bytes = plan(o);  // a token is a byte
  CHECK(contains(bytes, "4 100 bytes, taken as 4 100 tokens (1.00 bytes per token)"));
  CHECK(contains(bytes, "1 x 4 100 tokens; longer than the model was made for"));
  CHECK(rows(bytes).at(0).at(4) == lm::bytes_text(std::int64_t{4100} * 8 * 2 * 64 * 2));
  o.model.shape = "qwen3-8b";
  o.batch = 3;
  auto const guessed = plan(o);
  CHECK(contains(guessed,
                 "taken as 1 025 tokens (4.00 bytes per token, usual for English; see "
                 "--bytes-per-token)"));
  CHECK(contains(guessed, "3 x 1 025 tokens\n"));
  o.bytes_per_token = 2.5;
  CHECK(contains(plan(o), "taken as 1 640 tokens (2.50 bytes per token)"));
  lm::write_text(folder / "text", "");
  capture output(stdout);
  CHECK_THROWS_WITH_AS(lm::run_plan(o), doctest::Contains("between 1 and a billion tokens"),
                       lm::failure);
}

// 8 layers, room for three: sources 0 to 2 below where they are spread, and all at the bottom where
// prompts count.
TEST_CASE("plan: the leaders that cost least among all that fit") {
  auto o = of("demo");
  o.context = 1024;
  o.budget = 3 * 2 * 64 * 2 * 1024;
  auto const spread = plan(o);
  CHECK(spread.find("leaders:0,2,5, of all sets of leaders that fit") != std::string::npos);
  CHECK(spread.find("a source is 0.88 layers below on average, 25.0 % of prefill are skipped") !=
        std::string::npos);
  o.prefill_weight = 100;
  CHECK(plan(o).find("leaders:0, of all sets of leaders that fit") != std::string::npos);
  // Where strategies are given, they are what is compared.
  o.strategies = {"every:4"};
  CHECK(plan(o).find("of all sets") == std::string::npos);
}
