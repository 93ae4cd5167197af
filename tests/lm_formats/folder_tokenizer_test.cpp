// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whose tokens a folder without a tokenizer.json has, and which of its tokens end a text.
#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "export_command.hpp"
#include "formats/hugging_face.hpp"
#include "lm/tiny_files.hpp"
#include "lm_formats/gguf_bytes.hpp"
#include "lm_formats/hf_weights.hpp"
#include "lm_formats/refusals.hpp"
#include "question_data.hpp"
#include "support/capture.hpp"
#include "text_coder.hpp"
#include "tokenizer/tokenizer_json.hpp"

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

TEST_CASE("text_coder: SmolLM2 alone is told that it is SmolLM") {
  tiny::scratch_folder const scratch("system");
  auto const folder = scratch.path() + "/model";
  lm::save_hugging_face(folder, lm::parameters<float>(llama_shape()), {});
  std::filesystem::copy(fixture("../../lm_tokenizer/fixtures/smollm2.json"),
                        folder + "/tokenizer.json");
  auto const asked = [&](std::string const* system = nullptr) {
    auto const coder = lm::load_text_coder(folder);
    std::string text;
    for (auto const token : coder.encode_chat("Who are you?", system)) text += coder.decode(token);
    return text;
  };
  std::string const rest = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n";
  CHECK(asked() == rest);
  std::string const brief = "Be brief.";
  CHECK(asked(&brief) == "<|im_start|>system\nBe brief.<|im_end|>\n" + rest);
  std::ofstream(folder + "/tokenizer_config.json") << R"({"chat_template": "Hello"})";
  CHECK(asked() == rest);
  std::ofstream(folder + "/tokenizer_config.json")
      << R"({"chat_template": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"})";
  CHECK(contains(asked(), "named SmolLM"));
  std::string const nothing;
  CHECK(asked(&nothing) == rest);
}

namespace {

lm::text_coder smollm2_coder(std::string const& chat_template) {
  auto const from = fixture("../../lm_tokenizer/fixtures/smollm2.json");
  return lm::text_coder(lm::read_tokenizer_json(from), {"a.gguf", {2, 0}, chat_template, ""});
}

std::string const hello = "Hello, 12 stars\n<|im_end|>";

/// The llama of the fixtures with keys for its 16 tokens: a to o, and one that ends a text.
std::string llama_with_tokens() {
  gguf_bytes keys;
  auto const key = [&](char const* name) -> gguf_bytes& {
    return keys.string(std::string("tokenizer.ggml.") + name, "key");
  };
  key("model").number(8U).string("gpt2", "string");
  key("pre").number(8U).string("gpt-2", "string");
  key("eos_token_id").number(4U).number(15U);
  key("tokens").number(9U).number(8U).number(std::uint64_t{16});
  for (char c = 'a'; c <= 'o'; ++c) keys.string({&c, 1}, "element");
  keys.string("<|end|>", "element");
  key("token_type").number(9U).number(5U).number(std::uint64_t{16});
  for (int i = 0; i < 16; ++i) keys.number(i < 15 ? 1 : 3);
  key("merges").number(9U).number(8U).number(std::uint64_t{0});
  keys.string("filler", "key").number(8U);  // up to the alignment of what is behind
  keys.string(std::string(31 - (keys.text.size() + 8 + 31) % 32, ' '), "string");
  auto bytes = contents(fixture("llama.gguf"));
  bytes.insert(24, keys.text);
  bytes[16] = static_cast<char>(bytes[16] + 7);
  return bytes;
}

}  // namespace

TEST_CASE("text_coder: files of a tokenizer are read again as it was") {
  tiny::scratch_folder const scratch("saved");
  auto const folder = scratch.path() + "/model";
  std::string const chat =
      R"(You are a helpful AI assistant named SmolLM, trained by Hugging Face "{{ x }}")";
  auto const coder = smollm2_coder(chat);
  lm::save_hugging_face(folder, lm::parameters<float>(llama_shape()), {}, lm::weight_type::f32,
                        coder.ends());
  for (auto const& file : coder.files()) std::ofstream(folder + "/" + file.name) << file.content;
  auto const again = lm::load_text_coder(folder);
  CHECK(again.source() == folder);
  CHECK(again.ends() == coder.ends());
  CHECK(again.encode(hello, true) == coder.encode(hello, true));
  std::string const told = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
  CHECK(again.encode_chat("Hi") == coder.encode_chat("Hi", &told));
  auto const config =
      nlohmann::json::parse(std::ifstream(folder + "/tokenizer_config.json"), nullptr, false);
  CHECK(config.at("eos_token") == coder.decode(2));
  CHECK(config.at("chat_template") == chat);
  CHECK(!config.contains("unk_token"));
  CHECK(contains(refusal([&] { smollm2_coder("\xFF").files(); }), "is no UTF-8"));
}

TEST_CASE("export: of a GGUF file, the tokenizer goes with the model") {
  tiny::scratch_folder const scratch("exported");
  auto const file = scratch.path() + "/model.gguf", out = scratch.path() + "/out";
  std::filesystem::create_directory(scratch.path());
  std::ofstream(file, std::ios::binary) << llama_with_tokens();
  support::capture news(stderr);
  lm::run_export({file, "", out, {}, lm::weight_type::f32});
  CHECK(contains(news.text(), "wrote " + out + "/tokenizer.json"));
  std::filesystem::remove(file);  // nothing of it is needed any more
  auto const again = lm::load_text_coder(out);
  CHECK(again.source() == out);
  CHECK(again.size() == 16);
  CHECK(again.ends() == std::vector<std::int32_t>{15});
  CHECK(again.encode("bad<|end|>", true) == std::vector<std::int32_t>{1, 0, 3, 15});
}

TEST_CASE("text_coder: a folder says what ends a text") {
  tiny::scratch_folder const scratch("ends");
  auto const folder = scratch.path() + "/model";
  lm::parameters<float> const weights(llama_shape());
  using list = std::vector<std::int32_t>;
  auto const save = [&](list const& ends) {
    lm::save_hugging_face(folder, weights, {}, lm::weight_type::f32, ends);
    std::filesystem::copy(fixture("../../lm_tokenizer/fixtures/gpt2.json"),
                          folder + "/tokenizer.json",
                          std::filesystem::copy_options::overwrite_existing);
  };
  auto const generation = [&](char const* text) {
    std::ofstream(folder + "/generation_config.json") << text;
  };
  auto const ends = [&] { return lm::load_text_coder(folder).ends(); };
  save({});
  CHECK(ends().empty());
  // Answers end with their line, in the tokenizer's token of it.
  auto const coder = lm::load_text_coder(folder);
  auto const line = lm::question_data::end_of(coder);
  CHECK(coder.decode(line) == "\n");
  CHECK(lm::question_data::end_of(lm::text_coder()) == '\n');

  save({7});
  CHECK(ends() == list{7});
  save({7, 9});
  CHECK(ends() == list{7, 9});
  generation("{}");
  CHECK(ends() == list{7, 9});
  generation(R"({"eos_token_id": null})");
  CHECK(ends() == list{7, 9});
  generation(R"({"eos_token_id": 3})");
  CHECK(ends() == list{3});
  generation(R"({"eos_token_id": [5, 2]})");
  CHECK(ends() == list{5, 2});
  CHECK(lm::load_text_coder(folder).ends(2));
  CHECK(!lm::load_text_coder(folder).ends(7));
  CHECK(lm::question_data::end_of(lm::load_text_coder(folder)) == 5);
  generation(R"({"eos_token_id": [5, 5000]})");
  CHECK(refusal(ends) == folder + ": eos_token_id has 5000; the tokenizer's tokens are 0 to 1000");
  for (auto const* wrong : {R"("</s>")", "-1", "1.5", "[4294967296]", "{}"}) {
    generation((std::string(R"({"eos_token_id": )") + wrong + "}").c_str());
    auto const why = refusal(ends);
    CHECK(contains(why, folder + "/generation_config.json: eos_token_id is "));
    CHECK(contains(why, "it must be a token's number, or a list of such"));
  }
}
