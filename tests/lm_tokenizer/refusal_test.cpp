// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files that say what this program cannot do, or contradict themselves: each is refused with its
// place, what is there and what may be.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fixtures.hpp"

namespace {

using nlohmann::json;

/// A tokenizer of six tokens: "a", "b", "ab", "Ġ", "c" and the added "<x>".
json six() {
  return json::parse(R"({
    "normalizer": null,
    "added_tokens": [{"id": 5, "content": "<x>", "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false, "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "byte_fallback": false,
              "continuing_subword_prefix": null, "end_of_word_suffix": "", "fuse_unk": false,
              "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "c": 4}, "merges": ["a b"]}})");
}

struct refusal {
  char const* what;                 ///< that the message has
  std::function<void(json&)> edit;  ///< of six()
};

void check(std::vector<refusal> const& refusals) {
  for (auto const& refusal : refusals) {
    auto document = six();
    refusal.edit(document);
    CAPTURE(refusal.what);
    CHECK_THROWS_WITH_AS(lm::parse_tokenizer_json(document.dump()), doctest::Contains(refusal.what),
                         lm::failure);
  }
}

}  // namespace

TEST_CASE("refusals: the small tokenizer itself is none") {
  if (!fixtures::has_pcre2) return;
  auto const by = lm::parse_tokenizer_json(six().dump());
  CHECK(by.encode("ab<x> cz") == fixtures::ids{2, 5, 3, 4});
  auto document = six();
  document["model"]["merges"] = json::array({json::array({"a", "b"})});
  document["pre_tokenizer"] = {{"type", "Sequence"},
                               {"pretokenizers", {document["pre_tokenizer"]}}};
  CHECK(lm::parse_tokenizer_json(document.dump()).encode("ab<x> cz") == fixtures::ids{2, 5, 3, 4});
}

TEST_CASE("refusals: the model of a tokenizer.json") {
  check({
      {"model is 'null'; it must be an object", [](json& j) { j.erase("model"); }},
      {"model.type is '\"WordPiece\"'; it must be BPE",
       [](json& j) { j["model"]["type"] = "WordPiece"; }},
      {"model.dropout is '0.1'; it must be null", [](json& j) { j["model"]["dropout"] = .1; }},
      {"model.end_of_word_suffix is '\"</w>\"'; it must be empty",
       [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"model.byte_fallback is 'true'", [](json& j) { j["model"]["byte_fallback"] = true; }},
      {"model.unk_token is '\"u\"'; it must be a token of model.vocab",
       [](json& j) { j["model"]["unk_token"] = "u"; }},
      {"model.fuse_unk is 'true'; it must be false",
       [](json& j) { j["model"]["unk_token"] = "a", j["model"]["fuse_unk"] = true; }},
      {"model.ignore_merges is '1'; it must be true or false",
       [](json& j) { j["model"]["ignore_merges"] = 1; }},
  });
}

TEST_CASE("refusals: vocabularies") {
  check({
      {"model.vocab is 'null'; it must be an object", [](json& j) { j["model"].erase("vocab"); }},
      {"model.vocab['c'] is '-1'; it must be a whole number from 0 to 16777215",
       [](json& j) { j["model"]["vocab"]["c"] = -1; }},
      {"model.vocab['c'] is '16777216'", [](json& j) { j["model"]["vocab"]["c"] = 1 << 24; }},
      {"model.vocab['c'] is '1.5'", [](json& j) { j["model"]["vocab"]["c"] = 1.5; }},
      {"model.vocab['c'] has the id 1, which 'b' has, too",
       [](json& j) { j["model"]["vocab"]["c"] = 1; }},
      {"have 6 tokens and none of the id 4; ids must have no holes",
       [](json& j) { j["model"]["vocab"]["c"] = 1'000'000; }},
      {"added_tokens[0] has the id 4, which 'c' has, too",
       [](json& j) { j["added_tokens"][0]["id"] = 4; }},
      {"added_tokens[0].id is '5'; it must be 4, as in model.vocab",
       [](json& j) { j["added_tokens"][0]["content"] = "c"; }},
      {"added_tokens[0].content has 0 bytes; it must have 1 to 1024",
       [](json& j) { j["added_tokens"][0]["content"] = ""; }},
      {"added_tokens[0].content has 1025 bytes",
       [](json& j) { j["added_tokens"][0]["content"] = std::string(1025, 'x'); }},
      {"added_tokens[1].content is '\"<x>\"'; it must be in the list once",
       [](json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }},
      {"added_tokens[0].lstrip is '0'; it must be true or false",
       [](json& j) { j["added_tokens"][0]["lstrip"] = 0; }},
      {"added_tokens is '7'; it must be an array", [](json& j) { j["added_tokens"] = 7; }},
  });
}

TEST_CASE("refusals: merges") {
  check({
      {"model.merges is 'null'; it must be an array", [](json& j) { j["model"].erase("merges"); }},
      {"model.merges[0] is '\"a z\"'; it must be of tokens in model.vocab; 'z' is not there",
       [](json& j) { j["model"]["merges"] = {"a z"}; }},
      {"model.merges[0] is '\"b a\"'; it must be of tokens in model.vocab; 'ba' is not there",
       [](json& j) { j["model"]["merges"] = {"b a"}; }},
      {"model.merges[1] is '\"a b\"'; it must be in the list once",
       [](json& j) { j["model"]["merges"] = {"a b", "a b"}; }},
      {"it must be two tokens with one space", [](json& j) { j["model"]["merges"] = {"ab"}; }},
      {"it must be two tokens with one space", [](json& j) { j["model"]["merges"] = {"a b "}; }},
      {"it must be two strings",
       [](json& j) { j["model"]["merges"] = json::array({json::array({"a", "b", "c"})}); }},
      {"model.merges[0][1] is '1'; it must be a string",
       [](json& j) { j["model"]["merges"] = json::array({json::array({"a", 1})}); }},
  });
}

TEST_CASE("refusals: steps of other kinds, by their names") {
  json const metaspace = {{"type", "Metaspace"}}, byte_level = six()["pre_tokenizer"];
  auto const sequence = [](json const& steps) {
    return json{{"type", "Sequence"}, {"pretokenizers", steps}};
  };
  auto const split = [&](json const& pattern, char const* behaviour) {
    return sequence(
        {{{"type", "Split"}, {"pattern", pattern}, {"behavior", behaviour}}, byte_level});
  };
  json const regex = {{"Regex", "a"}};
  check({
      {"normalizer is of type 'Lowercase'; supported are NFC and Sequence",
       [](json& j) { j["normalizer"] = {{"type", "Lowercase"}}; }},
      {"pre_tokenizer has no ByteLevel", [](json& j) { j["pre_tokenizer"] = nullptr; }},
      {"pre_tokenizer is of type 'Metaspace'; supported are",
       [&](json& j) { j["pre_tokenizer"] = metaspace; }},
      {"pre_tokenizer.pretokenizers[1] comes behind ByteLevel",
       [&](json& j) { j["pre_tokenizer"] = sequence({byte_level, metaspace}); }},
      {"pre_tokenizer.pretokenizers is 'null'; it must be an array",
       [&](json& j) { j["pre_tokenizer"] = {{"type", "Sequence"}}; }},
      {"pretokenizers[0].behavior is '\"Kept\"'; it must be Isolated, Removed",
       [&](json& j) { j["pre_tokenizer"] = split(regex, "Kept"); }},
      {"pretokenizers[0].pattern.String is 'null'; it must be a string",
       [&](json& j) { j["pre_tokenizer"] = split(json::object(), "Isolated"); }},
      {"pretokenizers[0].pattern is empty",
       [&](json& j) { j["pre_tokenizer"] = split({{"String", ""}}, "Isolated"); }},
      {"is a Sequence within 8 others",
       [&](json& j) {
         for (int i = 0; i < 9; ++i)
           j["pre_tokenizer"] = sequence(json::array({j["pre_tokenizer"]}));
       }},
      {"decoder is of type 'WordPiece'; supported are ByteLevel and Sequence",
       [](json& j) { j["decoder"] = {{"type", "WordPiece"}}; }},
      {"decoder.type is 'null'; it must be a string",
       [](json& j) { j["decoder"] = json::object(); }},
      {"post_processor is of type 'BertProcessing'",
       [](json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; }},
  });
}

TEST_CASE("refusals: templates") {
  auto const templated = [](json const& single, json const& ids) {
    return json{{"type", "TemplateProcessing"},
                {"single", single},
                {"special_tokens", {{"<x>", {{"ids", ids}}}}}};
  };
  json const text = {{"Sequence", {{"id", "A"}}}}, x = {{"SpecialToken", {{"id", "<x>"}}}};
  check({
      {"post_processor.single has no Sequence, the place of the text",
       [&](json& j) { j["post_processor"] = templated(json::array({x}), {5}); }},
      {"post_processor.single[2] is the text once more",
       [&](json& j) { j["post_processor"] = templated({text, x, text}, {5}); }},
      {"post_processor.special_tokens.<x>.ids[0] is '6'; it must be a whole number from 0 to 5",
       [&](json& j) { j["post_processor"] = templated({x, text}, {6}); }},
      {"post_processor.special_tokens.<y> is 'null'",
       [&](json& j) {
         j["post_processor"] = templated({{{"SpecialToken", {{"id", "<y>"}}}}, text}, {5});
       }},
  });
}

TEST_CASE("refusals: documents that are none, and files") {
  for (std::string_view const text : {"", "{", "[1", "{\"a\": \"\xFF\"}", "\"\\ud800\""})
    CHECK_THROWS_WITH_AS(lm::parse_tokenizer_json(text), doctest::Contains("this is no JSON"),
                         lm::failure);
  CHECK_THROWS_WITH_AS(lm::parse_tokenizer_json("[]"), doctest::Contains("and no object"),
                       lm::failure);
  CHECK_THROWS_WITH_AS(lm::parse_tokenizer_json(std::string(100'000, '[')),
                       doctest::Contains("this is no JSON"), lm::failure);
  CHECK_THROWS_WITH_AS(lm::read_tokenizer_json("/nowhere/tokenizer.json"),
                       doctest::Contains("/nowhere/tokenizer.json: No such file"), lm::failure);
}

TEST_CASE("refusals: a program that was built without PCRE2 says what is missing") {
  if (fixtures::has_pcre2) return;
  CHECK_THROWS_WITH_AS(lm::parse_tokenizer_json(six().dump()),
                       doctest::Contains("built without PCRE2"), lm::failure);
}

TEST_CASE("refusals: GGUF's metadata") {
  struct refused_vocabulary {
    char const* what;
    std::function<void(lm::gguf_vocabulary&)> edit;
  };
  std::vector<refused_vocabulary> const cases = {
      {"tokenizer.ggml.model is 'llama'; it must be 'gpt2'", [](auto& g) { g.model = "llama"; }},
      {"tokenizer.ggml.pre is 'viking'; it must be gpt-2, llama-bpe",
       [](auto& g) { g.pre = "viking"; }},
      {"tokenizer.ggml.tokens is 0 strings", [](auto& g) { g.tokens.clear(); }},
      {"tokenizer.ggml.token_type is 3 numbers; it must be 4", [](auto& g) { g.types.pop_back(); }},
      {"tokenizer.ggml.token_type[1] is 7", [](auto& g) { g.types[1] = 7; }},
      {"tokenizer.ggml.tokens[1] is '｜'; it must be bytes in GPT-2's spelling",
       [](auto& g) { g.tokens[1] = "｜"; }},
      {"tokenizer.ggml.tokens[1] is 'a'; it must be in the list once",
       [](auto& g) { g.tokens[1] = "a"; }},
      {"tokenizer.ggml.tokens[3] is 0 bytes long", [](auto& g) { g.tokens[3].clear(); }},
      {"tokenizer.ggml.merges[0] is 'a z'; it must be of tokens; 'z' is none",
       [](auto& g) { g.merges = {"a z"}; }},
      {"tokenizer.ggml.merges[0] is 'b a'; it must be of tokens; 'ba' is none",
       [](auto& g) { g.merges = {"b a"}; }},
      {"tokenizer.ggml.merges[1] is 'a b'; it must be in the list once",
       [](auto& g) { g.merges = {"a b", "a b"}; }},
      {"tokenizer.ggml.merges[0] is 'ab'; it must be two tokens",
       [](auto& g) { g.merges = {"ab"}; }},
      {"tokenizer.ggml.bos_token_id is 4; it must be a token, from 0 to 3",
       [](auto& g) { g.bos = 4; }},
      {"tokenizer.ggml.eos_token_id is -1", [](auto& g) { g.add_eos = true; }},
  };
  for (auto const& refused : cases) {
    lm::gguf_vocabulary four{.model = "gpt2", .pre = "gpt-2"};
    four.tokens = {"a", "b", "ab", "<x>"};
    four.types = {1, 1, 1, 3};
    four.merges = {"a b"};
    refused.edit(four);
    CAPTURE(refused.what);
    CHECK_THROWS_WITH_AS(lm::make_tokenizer(four), doctest::Contains(refused.what), lm::failure);
  }
}
