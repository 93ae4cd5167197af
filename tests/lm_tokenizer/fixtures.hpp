// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The small tokenizers of make_fixtures.py, and what the package `tokenizers` made of hostile
// texts.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "text.hpp"
#include "tokenizer/tokenizer_gguf.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace fixtures {

using ids = std::vector<std::int32_t>;

#if defined(STRATA_LM_PCRE2)
inline constexpr bool has_pcre2 = true;
#else
inline constexpr bool has_pcre2 = false;
#endif
#if defined(STRATA_LM_UTF8PROC)
inline constexpr bool has_utf8proc = true;
#else
inline constexpr bool has_utf8proc = false;
#endif

inline nlohmann::json json(std::string const& name) {
  return nlohmann::json::parse(lm::read_file(STRATA_TOKENIZER_FIXTURES "/" + name));
}

inline lm::tokenizer tokenizer(std::string const& name) {
  return lm::read_tokenizer_json(STRATA_TOKENIZER_FIXTURES "/" + name + ".json");
}

/// The same vocabulary as GGUF has it.
inline lm::gguf_vocabulary gguf(std::string const& name, std::string const& pre) {
  auto const document = json(name + ".json");
  lm::gguf_vocabulary made{.model = "gpt2", .pre = pre};
  auto const& model = document["model"];
  auto const& added = document["added_tokens"];
  made.tokens.resize(model["vocab"].size() + added.size());
  for (auto const& [token, id] : model["vocab"].items()) made.tokens[id] = token;
  for (auto const& token : added) made.tokens[token["id"]] = token["content"];
  while (made.tokens.back().empty()) made.tokens.pop_back();  // those that vocab has, too
  made.types.assign(made.tokens.size(), 1);
  for (auto const& token : added) made.types[token["id"]] = token["special"] ? 3 : 4;
  for (auto const& merge : model["merges"])
    made.merges.push_back(merge.is_string()
                              ? merge.get<std::string>()
                              : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return made;
}

/// What decode gives of texts that come back as they were.
inline void check_case(lm::tokenizer const& by, nlohmann::json const& expected, bool round_trip) {
  auto const text = expected["text"].get<std::string>();
  auto const should = expected["ids"].get<ids>();
  CAPTURE(text);
  auto const found = by.encode(text);
  CHECK(found == should);
  auto const as_text = expected.contains("as_text") ? expected["as_text"].get<ids>() : should;
  CHECK(by.encode(text, {.special = false}) == as_text);
  if (expected.contains("ends"))
    CHECK(by.encode(text, {.ends = true}) == expected["ends"].get<ids>());
  if (expected.contains("decoded"))
    CHECK(by.decode(should) == expected["decoded"].get<std::string>());
  else if (round_trip)
    CHECK(by.decode(should) == text);
}

}  // namespace fixtures
