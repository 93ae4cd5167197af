// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// tokenizer.json. What is taken encodes texts, the file itself among them, into tokens that it has;
// and these are the text again, unless the file says itself that something is left out or added.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "failure.hpp"
#include "fuzz/fuzz.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace fuzz::tokenizer {

enum reach { no_json, refused, made, num_reaches };

/// Whether the way to tokens keeps all bytes.
inline bool keeps(lm::tokenizer_parts const& parts) {
  auto const changes = [](lm::split_rule const& rule) {
    return rule.prefix_space || rule.behaviour == lm::split_behaviour::removed;
  };
  auto const strips = [&](lm::added_token const& token) {
    auto const& bytes = parts.tokens[static_cast<std::size_t>(token.id)];
    return token.lstrip || token.rstrip || bytes != token.content;
  };
  return !parts.nfc && std::ranges::none_of(parts.splits, changes) &&
         std::ranges::none_of(parts.added, strips);
}

inline void check_text(lm::tokenizer const& by, std::string_view text, bool whole) {
  for (bool const special : {true, false}) {
    auto const ids = by.encode(text, {.special = special});
    for (auto const id : ids) require(id >= 0 && id < by.size(), "tokens are the file's");
    require(!whole || by.decode(ids) == text, "tokens are the text again");
  }
}

inline int one_input(bytes data) {
  input in(data);
  auto const text = in.text();
  auto const document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object()) return no_json;
  try {
    auto parts = lm::detail::tokenizer_json_reader(document).run();
    bool const kept = keeps(parts);
    lm::tokenizer const by(std::move(parts));
    auto const lost = by.lost_bytes();
    for (std::string_view const one :
         {text, std::string_view(" a<x>b \xFF it's  12\n\xC3\xA9 \r\n ab")})
      check_text(by, one, kept && lost.empty());
    return made;
  } catch (lm::failure const& error) {
    require(std::string_view(error.what()).size() > 5, "a refusal says why");
    return refused;
  }
}

}  // namespace fuzz::tokenizer
