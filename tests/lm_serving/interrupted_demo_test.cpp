// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A demo that somebody stops still reports what it has.
#include <unistd.h>

#include <filesystem>
#include <string>

#include "commanded.hpp"
#include "commands.hpp"
#include "interrupter.hpp"

using namespace commanded;

namespace {

lm::demo_options small_demo(scratch_folder const& folder) {
  lm::write_text(folder / "text", some_text(19 * 16384 + 600));  // the last 600 are held out
  lm::demo_options o;
  o.shape = small_shape();
  o.text = folder / "text";
  o.out = folder / "report";
  o.eval_bytes = 500;
  o.threads = 1;
  return o;
}

/// All lines of all models that exist have a loss and times.
void check_report(lm::json_value const& report, std::size_t models) {
  REQUIRE(report.at("models").size() == models);
  for (auto const& m : report.at("models")) {
    REQUIRE(m.at("strategies").size() == 4);
    for (auto const& s : m.at("strategies")) {
      CHECK(s.at("loss") > 0.5);
      CHECK(s.at("loss") < 7.0);
      CHECK(s.at("decode_tokens_per_s") > 0.0);
    }
  }
}

}  // namespace

TEST_CASE("demo: interrupted in training, it scores the models as they are") {
  scratch_folder const folder;
  auto o = small_demo(folder);
  o.steps = 1000;
  std::string said;
  {
    interrupter const stop(folder / "report/report.json");  // which the first live table writes
    capture output(stdout);
    lm::run_demo(o);
    said = output.text();
    CHECK(stop.saw_the_file());
    CHECK(lm::was_interrupted());
  }
  auto const report = read_json(folder / "report/report.json");
  auto const steps = report.at("steps").get<int>();
  CHECK(steps > 0);
  CHECK(steps < 1000);
  check_report(report, steps > 500 ? 5 : 4);  // the branching model begins half-way
  CHECK(contains(said, "Interrupted at step " + std::to_string(steps) + " of 1000."));
  CHECK(contains(said, "Interrupted, after"));
  CHECK(contains(contents(folder / "report/summary.txt"), "token by token equals full pass"));
  CHECK(std::filesystem::exists(folder / "report/loss_by_cache_size.svg"));
}

TEST_CASE("demo: interrupted before its first step, it reports untrained models") {
  scratch_folder const folder;
  auto o = small_demo(folder);
  o.minutes = 0.2;
  std::string said;
  {
    interrupted_now const stop;
    capture output(stdout);
    lm::run_demo(o);
    said = output.text();
  }
  CHECK(contains(said, "Interrupted at step 0 of "));
  auto const report = read_json(folder / "report/report.json");
  CHECK(report.at("steps") == 0);
  check_report(report, 4);
}

TEST_CASE("demo: a report that cannot be written does not end the training") {
  scratch_folder const folder;
  auto o = small_demo(folder);
  o.steps = 60;
  // A folder where the draft of the live report would be.
  auto const draft = folder / ("report/report.json.new." + std::to_string(getpid())).c_str();
  std::filesystem::create_directories(draft);
  capture output(stdout);
  CHECK_THROWS_WITH_AS(lm::run_demo(o), (draft + ": Is a directory").c_str(),
                       lm::failure);  // the last
  auto const said = output.text();
  auto const note = draft + ": Is a directory; the training goes on";
  CHECK(contains(said, note));
  CHECK(said.find(note) == said.rfind(note));
  CHECK_FALSE(contains(said, " at step "));  // neither interrupted nor out of time
  CHECK(contains(said, "All see the same batches"));
}

TEST_CASE("demo: a text of which nothing would be scored is refused at the start") {
  scratch_folder const folder;
  auto o = small_demo(folder);
  o.steps = 1;
  for (std::size_t const size : {0, 1000, 19 * 16384, 19 * 16384 + 1}) {
    CAPTURE(size);
    lm::write_text(folder / "text", some_text(size));
    CHECK_THROWS_WITH_AS(lm::run_demo(o), doctest::Contains("it takes at least 311 298"),
                         lm::failure);
  }
  lm::write_text(folder / "text", some_text(19 * 16384 + 2));
  {
    capture output(stdout);
    lm::run_demo(o);
  }
  check_report(read_json(folder / "report/report.json"), 5);
  o.eval_bytes = 1;
  CHECK_THROWS_WITH_AS(lm::run_demo(o), doctest::Contains("--eval-bytes is 1"), lm::failure);
}
