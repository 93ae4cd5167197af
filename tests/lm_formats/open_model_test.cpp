// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One door for models of all kinds, and commands that go through it.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "checkpoint.hpp"
#include "formats/hugging_face.hpp"
#include "formats/open_model.hpp"
#include "lm/tiny_files.hpp"
#include "lm_formats/hf_weights.hpp"
#include "lm_formats/refusals.hpp"
#include "lm_serving/commanded.hpp"

using namespace formats;

TEST_CASE("open_model: a model is known by its content, whatever it is called") {
  tiny::scratch_folder const folder("open");
  auto const checkpoint = folder.path() + "/a.gguf", gguf = folder.path() + "/b.strata",
             hugging_face = folder.path() + "/c.safetensors";
  lm::parameters<float> weights(llama_shape());
  fill_as_hf(weights);
  lm::save_checkpoint(checkpoint, weights, {}, {{"step", 7}});
  std::filesystem::copy(fixture("llama.gguf"), gguf);
  lm::save_hugging_face(hugging_face, weights, {{{"step", 7}}, {"full"}});
  for (auto const& path : {checkpoint, gguf, hugging_face}) {
    CAPTURE(path);
    auto const model = lm::load_model(path);
    CHECK(lm::load_model_config(path) == model.weights.config());
    check_as_hf(model.weights);
    if (path == gguf)
      CHECK(model.training.is_null());
    else
      CHECK(model.training.at("step") == 7);
  }
}

TEST_CASE("open_model: what is no model") {
  auto const why = [](std::string const& path) {
    auto const sentence = refusal([&] { lm::load_model(path); });
    CHECK(refusal([&] { lm::load_model_config(path); }) == sentence);
    return sentence;
  };
  CHECK(why("/nonexistent") == "/nonexistent: No such file or directory");
  CHECK(contains(why(fixture("make_fixtures.py")), "is no model of strata-lm"));
  CHECK(contains(why(fixture("llama/model.safetensors")),
                 "is a safetensors file, which has "
                 "weights alone; give its folder"));
  CHECK(contains(why(fixture("")), "config.json: No such file or directory"));
  CHECK(contains(why(fixture("types.gguf")), "'general.architecture' is types"));
  CHECK(contains(why("/dev/null"), "is no regular file"));
}

TEST_CASE("open_model: commands take files and folders") {
  for (auto const* const name : {"llama", "llama.gguf", "mistral", "qwen3.gguf"}) {
    CAPTURE(name);
    commanded::capture said(stdout);
    CHECK(commanded::run_program({"plan", "--model", fixture(name), "--context", "64"}) == 0);
    CHECK(contains(said.text(), "full"));
  }
  commanded::capture errors(stderr);
  CHECK(commanded::run_program({"plan", "--model", fixture("types.gguf")}) == 1);
  CHECK(contains(errors.text(), "'general.architecture' is types; this program reads llama"));
}
