// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whose tokens a folder without a tokenizer.json has.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "formats/hugging_face.hpp"
#include "lm/tiny_files.hpp"
#include "lm_formats/hf_weights.hpp"
#include "lm_formats/refusals.hpp"
#include "text_coder.hpp"

using namespace formats;

TEST_CASE("text_coder: a folder without a tokenizer finds its model's or says what to do") {
  tiny::scratch_folder const scratch("coder");
  auto const folder = scratch.path() + "/model", other = scratch.path() + "/other";
  auto shape = llama_shape();
  auto const save = [&](nlohmann::ordered_json const& training) {
    lm::parameters<float> const weights(shape);
    lm::save_hugging_face(folder, weights, {training, {}});
  };
  auto const why = [&] { return refusal([&] { lm::load_text_coder(folder); }); };
  shape.vocab = 300;
  save(nullptr);
  CHECK(why() ==
        folder +
            ": has no tokenizer.json, and its 300 tokens are no bytes, of which there are 256; "
            "copy the tokenizer.json of the model that it was made from into it");
  save({{"tokenizer", other}});
  CHECK(contains(why(), folder + ": its tokens are those of another file, which"));
  CHECK(contains(why(), other + ": No such file"));
  save({{"tokenizer", folder}});
  CHECK(contains(why(), "names another file again"));
  save({{"tokenizer", other}});
  std::filesystem::create_directory(other);
  std::filesystem::copy(fixture("../../lm_tokenizer/fixtures/gpt2.json"),
                        other + "/tokenizer.json");
  auto const coder = lm::load_text_coder(folder);
  CHECK(!coder.bytes());
  CHECK(coder.source() == other);
  shape.vocab = 256;
  save(nullptr);
  CHECK(lm::load_text_coder(folder).bytes());
}
