// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One door for models of all kinds, and commands that go through it.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "formats/gguf.hpp"
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
    auto narrow = lm::load_narrow_model(path);
    CHECK(narrow.config() == model.weights.config());
    check_as_hf(narrow);
    CHECK(lm::stored_weights(path) == lm::weight_type::f32);
    if (path == gguf)
      CHECK(model.training.is_null());
    else
      CHECK(model.training.at("step") == 7);
  }
}

TEST_CASE("open_model: matrices in bf16 stay so, and no others do unasked") {
  tiny::scratch_folder const folder("narrow");
  lm::parameters<float> weights(qwen3_shape());
  fill_as_hf(weights);
  lm::save_hugging_face(folder.path(), weights, {}, lm::weight_type::bf16);
  CHECK(lm::stored_weights(folder.path()) == lm::weight_type::bf16);
  auto narrow = lm::load_narrow_model(folder.path());
  check_as_hf(narrow);
  CHECK(lm::stored_weights(fixture("qwen3.gguf")) == lm::weight_type::f32);
  commanded::capture errors(stderr);
  CHECK(commanded::run_program({"eval", "--model", folder.path(), "--weights", "f16"}) == 2);
  CHECK(contains(errors.text(), "--weights"));
}

TEST_CASE("open_model: parts of a tensor are whole rows of it") {
  lm::gguf_file const file(fixture("types.gguf"));
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    auto const& tensor = file.tensors()[i];
    CAPTURE(tensor.name);
    std::vector<float> whole(static_cast<std::size_t>(tensor.size())), parts;
    file.read(i, whole);
    auto const row = static_cast<std::size_t>(tensor.shape.back());
    std::vector<float> part(row);
    for (std::size_t at = 0; at < whole.size(); at += row) {
      file.read_part(i, static_cast<std::int64_t>(at), part);
      parts.insert(parts.end(), part.begin(), part.end());
      file.forget();
    }
    CHECK(parts == whole);
    CHECK(contains(refusal([&] { file.read_part(i, tensor.size(), part); }), "has no part of"));
    CHECK(contains(refusal([&] { file.read_part(i, 1, part); }), " from 1 on"));
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
