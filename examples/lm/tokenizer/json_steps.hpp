// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What tokenizer.json says of the way from a text to tokens, the vocabulary apart: normalizer,
// pre_tokenizer, post_processor and decoder. Kinds that byte-level models do not have are refused
// by their name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/json_fields.hpp"
#include "tokenizer/tokenizer.hpp"

namespace lm::detail {

/// Calls f with each step of a Sequence, or with the one that there is; with none for null.
template <class F>
void each_step(json_field const& field, char const* members, F const& f, int depth = 0) {
  if (field.is_null()) return;
  if (field["type"].text() != "Sequence") return f(field);
  if (depth == 8) field.refuse("is a Sequence within 8 others");
  auto const steps = field[members];
  for (std::size_t i = 0; i < steps.length(); ++i) each_step(steps.item(i), members, f, depth + 1);
}

[[noreturn]] inline void refuse_kind(json_field const& field, char const* known) {
  field.refuse("is of type " + shown(field["type"].text()) + "; supported are " + known);
}

inline bool reads_nfc(json_field const& normalizer) {
  bool nfc = false;
  each_step(normalizer, "normalizers", [&](json_field const& step) {
    if (step["type"].text() != "NFC") refuse_kind(step, "NFC and Sequence");
    nfc = true;
  });
  return nfc;
}

inline constexpr std::pair<std::string_view, split_behaviour> split_behaviours[] = {
    {"Isolated", split_behaviour::isolated},
    {"Removed", split_behaviour::removed},
    {"MergedWithPrevious", split_behaviour::merged_with_previous},
    {"MergedWithNext", split_behaviour::merged_with_next},
    {"Contiguous", split_behaviour::contiguous}};

inline split_behaviour behaviour_of(json_field const& field) {
  for (auto const& [name, behaviour] : split_behaviours)
    if (field.text() == name) return behaviour;
  field.refuse_value("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}
inline std::string_view name_of(split_behaviour of) {
  for (auto const& [name, behaviour] : split_behaviours)
    if (behaviour == of) return name;
  return {};
}

/// A pattern that matches this text and nothing else.
inline std::string literally(std::string const& text) {
  constexpr std::string_view special = "!\"#$%&()*+,-./:;=?@[\\]^_{|}~'";
  std::string pattern;
  for (auto const c : text) {
    if (special.find(c) != special.npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

inline split_rule split_of(json_field const& step) {
  split_rule rule;
  auto const pattern = step["pattern"];
  rule.pattern =
      pattern["Regex"].is_null() ? literally(pattern["String"].text()) : pattern["Regex"].text();
  if (rule.pattern.empty()) pattern.refuse("is empty");
  rule.behaviour = behaviour_of(step["behavior"]);
  rule.invert = step["invert"].flag(false);
  return rule;
}

inline split_rule byte_level_of(json_field const& step) {
  split_rule rule;
  if (step["use_regex"].flag(true)) rule.pattern = patterns::gpt2;
  rule.prefix_space = step["add_prefix_space"].flag(true);
  return rule;
}

inline std::vector<split_rule> read_splits(json_field const& pre_tokenizer) {
  std::vector<split_rule> rules;
  bool byte_level = false;
  each_step(pre_tokenizer, "pretokenizers", [&](json_field const& step) {
    if (byte_level) step.refuse("comes behind ByteLevel, which must be the last step");
    if (rules.size() == 64) step.refuse("is one step too many; there may be 64");
    auto const& type = step["type"].text();
    if (type == "ByteLevel") {
      rules.push_back(byte_level_of(step));
      byte_level = true;
    } else if (type == "Split") {
      rules.push_back(split_of(step));
    } else if (type == "Digits") {
      bool const each = step["individual_digits"].flag(false);
      rules.push_back({.pattern = each ? patterns::digit : patterns::digits});
    } else {
      refuse_kind(step, "ByteLevel, Digits, Sequence and Split");
    }
  });
  if (!byte_level) pre_tokenizer.refuse("has no ByteLevel; other than byte-level BPE is not read");
  return rules;
}

inline void check_decoder(json_field const& decoder) {
  each_step(decoder, "decoders", [&](json_field const& step) {
    if (step["type"].text() != "ByteLevel") refuse_kind(step, "ByteLevel and Sequence");
  });
}

/// Appends the tokens of one special token of a template.
inline void append_special(json_field const& post, json_field const& name, std::int32_t size,
                           std::vector<std::int32_t>& ids) {
  auto const list = post["special_tokens"][name.text().c_str()]["ids"];
  for (std::size_t i = 0; i < list.length(); ++i) ids.push_back(list.item(i).number(size));
}

/// What comes around a text. size: of the vocabulary.
inline void read_ends(json_field const& post_processor, std::int32_t size, tokenizer_parts& parts) {
  each_step(post_processor, "processors", [&](json_field const& step) {
    auto const& type = step["type"].text();
    if (type == "ByteLevel") return;  // changes offsets alone
    if (type != "TemplateProcessing")
      refuse_kind(step, "ByteLevel, Sequence and TemplateProcessing");
    auto const items = step["single"];
    bool text_seen = false;
    for (std::size_t i = 0; i < items.length(); ++i) {
      bool const is_text = !items.item(i)["Sequence"].is_null();
      if (is_text && text_seen) items.item(i).refuse("is the text once more");
      text_seen |= is_text;
      if (!is_text)
        append_special(step, items.item(i)["SpecialToken"]["id"], size,
                       text_seen ? parts.behind : parts.before);
    }
    if (!text_seen) items.refuse("has no Sequence, the place of the text");
  });
  if (!parts.before.empty()) parts.bos = parts.before.front();
  if (!parts.behind.empty()) parts.eos = parts.behind.back();
}

}  // namespace lm::detail
