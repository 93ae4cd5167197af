// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The commands that measure what a cache may lose, and the choice of leaders by what they found.
#include <algorithm>
#include <cmath>
#include <limits>

#include "commanded.hpp"
#include "served.hpp"

#include "commands.hpp"
#include "sensitivity.hpp"

using served::text_of;

using namespace commanded;

namespace {

/// The losses of windows under a plan, one token at a time and in double.
std::vector<double> losses_in_double(lm::parameters<double> const& model,
                                     std::span<lm::window const> windows, char const* strategy,
                                     std::int32_t context) {
  strata::thread_pool pool(1);
  served::exact_server server(model, served::room(model.config(), 1, context), pool);
  auto const plan = served::plan(strategy, model.config());
  std::vector<double> losses;
  for (auto const& w : windows) {
    auto const id = served::open(server, plan);
    double sum = 0;
    for (std::int32_t i = 0; i < w.inputs; ++i) {
      std::int32_t const token = w.text[i];
      auto const row = served::run(server, id, std::span(&token, 1), strata::logits::last);
      if (i < w.first_scored) continue;
      double total = 0;
      for (auto const x : row) total += std::exp(x);
      sum += std::log(total) - row[w.text[i + 1]];
    }
    losses.push_back(sum);
    REQUIRE(server.close(id).ok());
  }
  return losses;
}

void check_close(std::vector<double> const& found, std::vector<double> const& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    CHECK(found[i] == doctest::Approx(expected[i]).epsilon(1e-4));
}

double sum_of(std::vector<double> const& values) {
  double sum = 0;
  for (auto const v : values) sum += v;
  return sum;
}

}  // namespace

TEST_CASE("sensitivity: each leader's removal, as a model without it loses") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const exact = served::model<double>(config);
  auto const model = served::model<float>(config);
  lm::cpu_place place(model, pool);
  auto const text = text_of(70, config.vocab);
  constexpr std::int32_t context = 14;
  auto const windows = lm::cut_windows(text, context, 7);
  lm::leader_removals measured(place, windows, {lm::cache_codec::f32, context});
  auto const from = lm::resolve_strategy("leaders:0,1,3,4", config);
  check_close(measured.losses(from), losses_in_double(exact, windows, "leaders:0,1,3,4", context));

  std::vector<std::int32_t> heard;
  auto const removed =
      measured.one_by_one(from, [&](std::int32_t layer) { heard.push_back(layer); });
  CHECK(heard == std::vector<std::int32_t>{1, 3, 4});
  REQUIRE(removed.size() == 3);
  char const* const left[] = {"leaders:0,3,4", "leaders:0,1,4", "leaders:0,1,3"};
  std::vector<double> sums;
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(removed[i].layer == heard[i]);
    CHECK(removed[i].left.given == left[i]);
    auto const expected = losses_in_double(exact, windows, left[i], context);
    check_close(removed[i].loss, expected);
    sums.push_back(sum_of(expected));
  }

  // One leader less at a time: always the cheapest of those that are left.
  auto const path = measured.greedily(removed, [](std::int32_t) {});
  REQUIRE(path.size() == 3);
  auto const first = std::ranges::min_element(sums) - sums.begin();
  CHECK(path[0].left.given == left[first]);
  double least = std::numeric_limits<double>::infinity();
  for (auto const leader : path[0].left.leaders) {
    if (leader == 0) continue;
    auto given = std::string("leaders:0");
    for (auto const other : path[0].left.leaders)
      if (other != 0 && other != leader) given += "," + std::to_string(other);
    least = std::min(least, sum_of(losses_in_double(exact, windows, given.c_str(), context)));
  }
  CHECK(sum_of(path[1].loss) == doctest::Approx(least).epsilon(1e-4));
  CHECK(path[2].left.given == "leaders:0");
}

TEST_CASE("sensitivity and plan: the file of the one is what the other chooses by") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::write_text(folder / "text", some_text(600));
  auto const model = folder / "model", text = folder / "text", file = folder / "json";
  {
    capture output(stdout);
    CHECK(run_program({"sensitivity", "--model", model, "--text", text, "--greedy", "--threads",
                       "1", "--json", file}) == 0);
  }
  auto json = read_json(file);
  CHECK(json.at("sensitivity").size() == 4);
  CHECK(json.at("sensitivity")[0] == 0.0);
  REQUIRE(json.at("alone").size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    auto const& one = json.at("alone")[i];
    CHECK(one.at("layer") == i + 1);
    CHECK(one.at("cost").at("mean").get<double>() ==
          doctest::Approx(one.at("loss").get<double>() - json.at("loss").at("mean").get<double>()));
    CHECK(json.at("sensitivity")[i + 1].get<double>() ==
          std::max(one.at("cost").at("mean").get<double>(), 0.0));
  }
  REQUIRE(json.at("greedy").size() == 3);
  CHECK(json.at("greedy")[2].at("strategy") == "leaders:0");

  // Of four layers two fit: 0, and that whose absence would cost most. Distance would choose 0 and 2.
  json["sensitivity"] = {0.0, 0.1, 0.2, 0.4};
  json["greedy"][1]["strategy"] = "leaders:0,1";
  json["greedy"][1]["cost"]["mean"] = -9;
  lm::write_json(file, json);
  lm::plan_options o;
  o.model.file = model;
  o.context = 64;
  o.budget = 2 * 2 * 16 * 2 * 64;
  auto const plan = [&] {
    capture output(stdout);
    lm::run_plan(o);
    return output.text();
  };
  CHECK(contains(plan(), "leaders:0,2, of all sets"));
  o.sensitivities = file;
  CHECK(
      contains(plan(), "leaders:0,3, of all sets"));  // 0.1 + 0.2 and 3 / 16 against 0.5 and 2 / 16
  o.distance_weight = 0;
  auto const chosen = plan();
  CHECK(contains(chosen, "leaders:0,3, of all sets"));
  CHECK(contains(chosen, "add up to 0.3000 nats per token"));
  CHECK(contains(chosen, "leaders:0,1, of the sets that were measured"));
  o.distance_weight = 100;
  CHECK(contains(plan(), "leaders:0,2, of all sets"));

  capture output(stdout);
  lm::write_text(file, "{\"sensitivity\": [0, 1]}");
  CHECK_THROWS_WITH_AS(lm::run_plan(o), doctest::Contains("is of a model of 2 layers"),
                       lm::failure);
  lm::write_text(file, "[1, 2]");
  CHECK_THROWS_WITH_AS(lm::run_plan(o), doctest::Contains("is no file of strata-lm sensitivity"),
                       lm::failure);
}

TEST_CASE("bits: a grid with full and f32 first, and models beside it at full depth") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  write_small_model(folder / "other");
  lm::write_text(folder / "text", some_text(300));
  auto const model = folder / "model", text = folder / "text", file = folder / "json";
  auto const other = folder / "other", picture = folder / "map.svg";
  capture output(stdout);
  CHECK(run_program({"bits",   "--model", model,        "--beside",  other,
                     "--text", text,      "--strategy", "every:2",   "spread:2",
                     "tail:3", "--codec", "int4",       "int8/int4", "--threads",
                     "1",      "--json",  file,         "--picture", picture}) == 0);
  auto const json = read_json(file);
  CHECK(json.at("tokens") == 299);
  REQUIRE(json.at("models").size() == 2);
  std::vector<std::string> cells;
  for (auto const& cell : json.at("models")[0].at("cells"))
    cells.push_back(cell.at("strategy").get<std::string>() + " " +
                    cell.at("codec").get<std::string>());
  // every:2 and spread:2 are one plan.
  CHECK(cells == std::vector<std::string>{"full f32", "full int4", "full int8/int4", "every:2 f32",
                                          "every:2 int4", "every:2 int8/int4", "tail:3 f32",
                                          "tail:3 int4", "tail:3 int8/int4"});
  CHECK(json.at("models")[1].at("cells").size() == 3);
  // The same weights: all but what shares and rounds is equal.
  CHECK(json.at("models")[0].at("cells")[1] == json.at("models")[1].at("cells")[1]);
  CHECK(json.at("at_equal_bytes").size() == 3);
  CHECK(contains(contents(picture), "<svg"));
}

TEST_CASE("shrink: pairs of which one keeps a part of the other's leaders") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  lm::write_text(folder / "text", some_text(200));
  auto const model = folder / "model", text = folder / "text", file = folder / "json";
  capture output(stdout);
  CHECK(run_program({"shrink", "--model", model, "--text", text, "--strategy", "full", "every:2",
                     "leaders:0,3", "--block-size", "4", "--threads", "1", "--json", file}) == 0);
  auto const json = read_json(file);
  std::vector<std::string> pairs;
  for (auto const& one : json.at("changes"))
    pairs.push_back(one.at("before").get<std::string>() + " " + one.at("after").get<std::string>());
  CHECK(pairs == std::vector<std::string>{"full every:2", "full leaders:0,3"});
  auto const& one = json.at("changes")[0];
  auto const mean = [&](char const* key) { return one.at(key).at("mean").get<double>(); };
  CHECK(mean("shrunk") == mean("subset_reused"));  // blocks of 4 end in the middle of 16 tokens
  CHECK(mean("shrunk_less_begun") == doctest::Approx(mean("shrunk") - mean("begun_smaller")));
  double parts = 0;
  for (auto const& part : one.at("shrunk_less_begun_by_part"))
    parts += part.at("mean").get<double>();
  CHECK(parts / 4 == doctest::Approx(mean("shrunk_less_begun")));
}
