// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files to be written are tried before the work, not after it, and what fails leaves nothing.
#include "output_file.hpp"

#include <string>

#include "commanded.hpp"
#include "commands.hpp"
#include "train_command.hpp"

using commanded::contents;
using commanded::scratch_folder;

TEST_CASE("output: a path that cannot be written is refused by its argument's name") {
  scratch_folder const folder;
  CHECK_NOTHROW(lm::require_writable("--json", ""));
  CHECK_NOTHROW(lm::require_writable("--json", folder / "new"));
  CHECK(folder.entries() == 0);  // the probe is gone
  lm::write_text(folder / "old", "kept");
  CHECK_NOTHROW(lm::require_writable("--json", folder / "old"));
  CHECK(contents(folder / "old") == "kept");
  auto const refused = [&](std::string const& path, std::string const& why) {
    CHECK_THROWS_WITH_AS(lm::require_writable("--json", path),
                         ("--json " + path + ": " + why).c_str(), lm::failure);
  };
  refused(folder / "missing/file", "No such file or directory");
  refused(folder / "", "is a folder");
  refused(folder / "old/file", "Not a directory");
}

TEST_CASE("output: a draft that cannot take the file's place is taken away") {
  scratch_folder const folder;
  std::filesystem::create_directory(folder / "taken");
  CHECK_THROWS_WITH_AS(lm::write_text(folder / "taken", "words"),
                       ((folder / "taken") + ": Is a directory").c_str(), lm::failure);
  CHECK(folder.entries() == 1);
}

TEST_CASE("output: every command tries its paths before it reads or computes anything") {
  scratch_folder const folder;
  auto const missing = folder / "missing/file";
  // Models and texts do not exist either: whoever complains of the output has looked there first.
  lm::eval_options eval;
  eval.model = eval.text = folder / "no model";
  eval.json_file = missing;
  CHECK_THROWS_WITH_AS(lm::run_eval(eval), doctest::Contains(("--json " + missing).c_str()),
                       lm::failure);
  lm::bench_options bench;
  bench.model.file = folder / "no model";
  bench.json_file = missing;
  CHECK_THROWS_WITH_AS(lm::run_bench(bench), doctest::Contains(("--json " + missing).c_str()),
                       lm::failure);
  lm::demo_options demo;
  demo.text = folder / "no text";
  demo.out = folder / "report";
  demo.steps = 1;
  demo.study = missing;
  CHECK_THROWS_WITH_AS(lm::run_demo(demo), doctest::Contains(("--study " + missing).c_str()),
                       lm::failure);
  demo.study.clear();
  std::filesystem::create_directory(folder / "report/report.json");
  CHECK_THROWS_WITH_AS(lm::run_demo(demo), doctest::Contains(("--out " + demo.out).c_str()),
                       lm::failure);
  lm::train_request train;
  train.training.text = {folder / "no text"};
  train.out = missing;
  CHECK_THROWS_WITH_AS(lm::run_train(train), doctest::Contains(("--out " + missing).c_str()),
                       lm::failure);
  train.out = folder / "report";
  CHECK_THROWS_WITH_AS(lm::run_train(train), doctest::Contains("is a folder"), lm::failure);
}
