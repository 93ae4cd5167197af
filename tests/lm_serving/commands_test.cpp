// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The commands as programs see them: files in, reports out.
#include "commanded.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include "commands.hpp"

namespace {

using commanded::read_json;
using commanded::run_program;
using commanded::scratch_folder;
using commanded::small_shape;
using commanded::some_text;
using commanded::write_small_model;

/// Exactly these keys, in this order.
void check_keys(lm::json_value const& object, std::vector<std::string> const& keys) {
  std::vector<std::string> found;
  for (auto const& item : object.items()) found.push_back(item.key());
  CHECK(found == keys);
}

std::vector<std::string> const strategy_keys = {"strategy",
                                                "leaders",
                                                "retention",
                                                "loss",
                                                "kv_bytes_per_token",
                                                "ttft_ms",
                                                "prefill_tokens_per_s",
                                                "decode_tokens_per_s"};

}  // namespace

TEST_CASE("eval: two strategies, as the report promises them") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::write_text(folder / "text", some_text(1000));
  auto const model = folder / "model", text = folder / "text", report = folder / "json";
  CHECK(run_program({"eval", "--model", model, "--text", text, "--strategy", "every:3", "leaders:0",
                     "--codec", "f16", "--threads", "1", "--json", report}) == 0);
  auto const json = read_json(report);
  check_keys(json, {"model", "tokens", "strategies"});
  CHECK(json.at("model").at("layers") == 4);
  CHECK(json.at("tokens") == 999);
  REQUIRE(json.at("strategies").size() == 2);
  for (auto const& s : json.at("strategies")) {
    check_keys(s, strategy_keys);
    CHECK(s.at("loss") > 3.0);  // untrained: near ln 256 = 5.55
    CHECK(s.at("loss") < 7.0);
    for (auto const* const rate : {"ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s"})
      CHECK(s.at(rate) > 0.0);
  }
  auto const& two = json.at("strategies")[0];
  CHECK(two.at("strategy") == "every:3");
  CHECK(two.at("leaders") == std::vector<int>{0, 3});
  CHECK(two.at("retention") == 0.5);
  CHECK(two.at("kv_bytes_per_token") == 2 * 2 * 16 * 2);  // K and V, 2 layers of 16 16-bit numbers
  CHECK(json.at("strategies")[1].at("kv_bytes_per_token") == 2 * 16 * 2);
}

TEST_CASE("eval: in 8 bits, scales included") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::write_text(folder / "text", some_text(600));
  std::pair<char const*, double> const codecs[] = {{"int8", 2}, {"q8_0", 2}, {"fp8", 0}};
  for (auto const& [codec, scales] : codecs) {
    CHECK(run_program({"eval", "--model", folder / "model", "--text", folder / "text", "--strategy",
                       "leaders:0", "--codec", codec, "--threads", "1", "--json",
                       folder / codec}) == 0);
    auto const row = read_json(folder / codec).at("strategies")[0];
    CHECK(row.at("loss") < 7.0);
    // K and V of 16 numbers a token, and scales of its own; less than in 16 bits.
    CHECK(row.at("kv_bytes_per_token") >= 2 * (16 + scales));
    CHECK(row.at("kv_bytes_per_token") < 2 * 2 * 16);
  }
}

TEST_CASE("eval: held-out blocks alone, and the probe where it is asked for") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::write_text(folder / "text", some_text(4 * 16384 + 100));
  lm::eval_options o;
  o.model = folder / "model";
  o.text = folder / "text";
  o.hold_out = 2;
  o.max_bytes = 16384 + 50;
  o.probe = "repeat";
  o.json_file = folder / "json";
  lm::run_eval(o);
  auto const json = read_json(o.json_file);
  CHECK(json.at("tokens") == 16383 + 49);  // the first byte of each block has nothing before it
  CHECK(json.at("strategies")[0].at("repeat_loss") > 0.0);
}

TEST_CASE("exit codes: done, failed, wrong use, does not fit") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::write_text(folder / "text", "x");
  auto const model = folder / "model", text = folder / "text";
  CHECK(run_program({"--help"}) == 0);
  CHECK(run_program({"plan", "--shape", "qwen3-8b", "--strategy", "every:4"}) == 0);
  CHECK(run_program({"generate", "--model", model, "--prompt", "In", "--max-tokens", "3"}) == 0);
  CHECK(run_program({"eval", "--model", model, "--text", text}) == 1);
  CHECK(run_program({"eval", "--model", text, "--text", text}) == 1);
  CHECK(run_program({}) == 2);
  CHECK(run_program({"plan"}) == 2);
  CHECK(run_program({"plan", "--shape", "nobody"}) == 2);
  CHECK(run_program({"plan", "--shape", "demo", "--budget", "12q"}) == 2);
  CHECK(run_program({"plan", "--shape", "demo", "--batch", "0"}) == 2);
  CHECK(run_program({"generate", "--model", model, "--prompt", "In", "--strategy", "every:x"}) ==
        2);
  CHECK(run_program({"eval", "--model", model, "--text", text, "--stride", "17"}) == 2);
  // 4 layers x 2 x 16 floats x 5 tokens, in 3 cache lines... 2560 bytes; one less does not do.
  CHECK(run_program({"generate", "--model", model, "--prompt", "In", "--max-tokens", "3",
                     "--kv-budget", "2560"}) == 0);
  CHECK(run_program({"generate", "--model", model, "--prompt", "In", "--max-tokens", "3",
                     "--kv-budget", "2559"}) == 3);
  CHECK(run_program({"generate", "--model", model, "--prompt", "In", "--max-tokens", "3",
                     "--kv-budget", "640", "--strategy", "leaders:0"}) == 0);
  CHECK(run_program({"plan", "--shape", "demo", "--budget", "1KiB"}) == 3);
  CHECK(run_program({"bench", "--shape", "demo", "--context", "100", "--kv-budget", "1KiB"}) == 3);
}

TEST_CASE("bench: full is in every table, and what a budget refuses says its bytes") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::bench_options o;
  o.model.file = folder / "model";
  o.contexts = {100};
  o.batches = {2};
  o.steps = 4;
  o.strategies = {"every:4", "full"};
  o.prefill = true;
  o.codec = lm::cache_codec::f32;
  o.kv_budget = 100000;
  o.json_file = folder / "json";
  lm::run_bench(o);
  auto const json = read_json(o.json_file);
  auto const& rows = json.at("tables").at(0).at("strategies");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].at("strategy") == "full");
  CHECK(rows[0].at("kv_bytes") == 2 * 4 * 16 * 4 * 107 * 2);  // of 100 + 4 + 3 tokens, twice
  CHECK(rows[0].at("refused").get<std::string>().find("109 568 bytes") != std::string::npos);
  CHECK(rows[1].at("kv_bytes_per_token") == 2 * 16 * 4);
  CHECK(rows[1].at("decode_tokens_per_s") > 0.0);
  // Weights but for K and V of three followers; K and V of 105.5 tokens by every layer, twice.
  auto const width = json.at("model").at("dim").get<std::int64_t>();
  CHECK(rows[1].at("bytes_per_step") == json.at("weight_bytes").get<std::int64_t>() -
                                            3 * 2 * 16 * 4 * width + 2 * 4 * 16 * 4 * 211);
  CHECK(rows[1].at("fraction_of_roofline") > 0.0);
  CHECK(rows[1].at("read_bytes_per_second") > 0.0);
  CHECK(rows[1].at("prefill_tokens_per_s") > 0.0);
  CHECK_FALSE(rows[1].contains("ratio_to_full"));
}

TEST_CASE("bench --train: the training step against its own products") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::bench_options o;
  o.model.file = folder / "model";
  o.train = true;
  o.batches = {8};
  o.steps = 2;
  o.threads = 1;
  o.json_file = folder / "json";
  lm::run_bench(o);
  auto const json = read_json(o.json_file);
  check_keys(json, {"machine", "kernels", "name", "model", "batch", "threads", "steps"});
  CHECK(json.at("model").at("layers") == 4);
  CHECK(json.at("batch") == 8);
  CHECK(json.at("threads") == 1);
  std::vector<std::string> names;
  for (auto const& step : json.at("steps")) {
    check_keys(step, {"step", "ms", "of_blas"});
    names.push_back(step.at("step"));
    CHECK(step.at("ms") > 0.0);
    CHECK(step.at("of_blas") > 0.0);
  }
  CHECK(names == std::vector<std::string>{"its products, BLAS alone", "self", "rcla:0.6"});
  CHECK(json.at("steps")[0].at("of_blas") == 1.0);
}

TEST_CASE("demo: five models, their report, a plot, and a study goes on with the seeds it lacks") {
  scratch_folder const folder;
  lm::write_text(folder / "text", some_text(20 * 16384));
  lm::demo_options o;
  o.shape = small_shape();
  o.text = folder / "text";
  o.out = folder / "report";
  o.steps = 4;
  o.eval_bytes = 500;
  o.also = {"cla:2"};
  lm::run_demo(o);
  auto const report = read_json(folder / "report/report.json");
  check_keys(report, {"machine", "steps", "seed", "models"});
  CHECK(report.at("steps") == 4);
  CHECK(report.at("seed") == 1);
  std::vector<std::string> names;
  for (auto const& m : report.at("models")) {
    check_keys(m, {"name", "layers", "routing", "parameters", "train_seconds", "strategies"});
    names.push_back(m.at("name"));
    CHECK(m.at("train_seconds") > 0.0);
    REQUIRE(m.at("strategies").size() == 4);
    for (auto const& s : m.at("strategies")) check_keys(s, strategy_keys);
  }
  CHECK(names == std::vector<std::string>{"plain", "rcla", "finished", "plain-half",
                                          "plain-quarter", "cla:2"});
  CHECK(report.at("models")[0].at("routing") == "self");
  CHECK(report.at("models")[1].at("routing") == "rcla:0.5");
  CHECK(report.at("models")[2].at("routing") == "self, then rcla:0.5");
  CHECK(report.at("models")[3].at("layers") == 2);
  CHECK(report.at("models")[4].at("layers") == 1);
  CHECK(std::filesystem::file_size(folder / "report/loss_by_cache_size.svg") > 1000);
  CHECK(std::filesystem::file_size(folder / "report/summary.txt") > 1000);

  o.also.clear();
  CHECK_THROWS_AS(([&] {
                    auto wrong = o;
                    wrong.seeds = 2;
                    lm::run_demo(wrong);
                  }()),
                  lm::failure);
  o.study = folder / "study.json";
  lm::run_demo(o);
  CHECK(std::filesystem::file_size(folder / "study.svg") > 1000);
  CHECK(std::filesystem::file_size(folder / "report/seed-1/summary.txt") > 1000);
  auto const one = read_json(o.study);
  o.seeds = 2;
  lm::run_demo(o);
  auto const two = read_json(o.study);
  REQUIRE(two.at("runs").size() == 2);
  CHECK(two.at("runs")[0] == one.at("runs")[0]);
  CHECK(two.at("runs")[1].at("seed") == 2);
  // The same seed gave the same model, with or without a study and further models.
  CHECK(one.at("runs")[0].at("models")[1].at("strategies")[0].at("loss") ==
        report.at("models")[1].at("strategies")[0].at("loss"));
  auto const& against = two.at("against_plain");
  CHECK(against.size() == 4 * 4);
  CHECK(against[0].at("model") == "rcla");
  CHECK(against[0].at("per_seed").size() == 2);
  o.steps = 5;
  CHECK_THROWS_WITH_AS(lm::run_demo(o), doctest::Contains("other settings"), lm::failure);
}
