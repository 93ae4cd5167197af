// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm export: a folder that has what the model has.
#include "commanded.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "formats/hugging_face.hpp"

using namespace commanded;

TEST_CASE("export: weights, shape and what is known of the routing are in the folder") {
  scratch_folder const folder;
  lm::parameters<float> model(small_shape());
  lm::initialise(model, 3);
  lm::save_checkpoint(folder / "model", model, {}, {{"step", 7}});
  {
    capture news(stderr);
    CHECK(run_program({"export", "--model", folder / "model", "--out", folder / "out", "--weights",
                       "f32", "--strategy", "full", "every:2"}) == 0);
    CHECK(contains(news.text(), "every:2: leaders 0,2, 50.0 % of K/V"));
    CHECK(contains(news.text(), "its tokens are bytes"));
  }
  auto const loaded = lm::load_hugging_face(folder / "out");
  CHECK(std::ranges::equal(loaded.values(), model.values()));
  auto const recipe = lm::load_recipe(folder / "out");
  CHECK(recipe.training.at("step") == 7);
  CHECK(recipe.strategies == std::vector<std::string>{"full", "every:2"});
}

TEST_CASE("export: a folder becomes a folder with its tokenizer and a strategy must be one") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  capture news(stderr);
  REQUIRE(run_program({"export", "--model", folder / "model", "--out", folder / "a"}) == 0);
  auto const rounded = lm::load_hugging_face(folder / "a");  // in bf16, where nothing is said
  auto const exact = lm::load_checkpoint(folder / "model").weights;
  for (std::size_t i = 0; i < exact.values().size(); ++i)
    CHECK(std::abs(rounded.values()[i] - exact.values()[i]) <=
          std::abs(exact.values()[i]) * 0x1p-8F);
  CHECK(run_program({"export", "--model", folder / "a", "--out", folder / "b", "--strategy",
                     "every:9x"}) == 2);
  CHECK(!fs::exists(folder / "b"));
}
