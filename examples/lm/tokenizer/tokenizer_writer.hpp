// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Writes tokenizer.json, the file of Hugging Face's `tokenizers`, of a tokenizer that came from
// elsewhere: what tokenizer_json.hpp reads, the other way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "failure.hpp"
#include "tokenizer/json_steps.hpp"
#include "tokenizer/tokenizer.hpp"

namespace lm {

/// A token as vocabularies have it; what is not made of bytes stands there as it is.
inline std::string spelled(tokenizer_parts const& parts, std::int32_t id) {
  auto const at = static_cast<std::size_t>(id);
  return parts.is_text[at] ? spell_bytes(parts.tokens[at]) : parts.tokens[at];
}

namespace detail {

class tokenizer_json_writer {
 public:
  using json = nlohmann::json;  // an ordered_json of 150,000 keys looks for each among all before

  explicit tokenizer_json_writer(tokenizer_parts const& from) : from_(from) {}

  json run() const {
    return {{"version", "1.0"},
            {"truncation", nullptr},
            {"padding", nullptr},
            {"added_tokens", added()},
            {"normalizer", from_.nfc ? json{{"type", "NFC"}} : json(nullptr)},
            {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", splits()}}},
            {"post_processor", ends()},
            {"decoder", byte_level(false, true)},
            {"model", model()}};
  }

 private:
  static json byte_level(bool prefix_space, bool use_regex) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", prefix_space},
            {"trim_offsets", true},
            {"use_regex", use_regex}};
  }

  std::string spelled(std::int32_t id) const { return lm::spelled(from_, id); }

  json added() const {
    auto list = json::array();
    for (auto const& token : from_.added)
      list.push_back({{"id", token.id},
                      {"content", token.content},
                      {"single_word", token.single_word},
                      {"lstrip", token.lstrip},
                      {"rstrip", token.rstrip},
                      {"normalized", token.normalized},
                      {"special", token.special}});
    return list;
  }

  /// The last step must be a ByteLevel, which has a pattern of its own or none.
  json splits() const {
    auto steps = json::array();
    for (auto const& rule : from_.splits) {
      bool const last = &rule == &from_.splits.back();
      bool const own = rule.pattern == patterns::gpt2 && is_plain(rule);
      if (last && (own || rule.pattern.empty())) {
        steps.push_back(byte_level(rule.prefix_space, own));
        return steps;
      }
      if (rule.prefix_space)
        throw failure("tokenizer.json cannot say that a space comes before what the pattern " +
                      shown(rule.pattern) + " cuts");
      steps.push_back(split(rule));
    }
    steps.push_back(byte_level(false, false));
    return steps;
  }
  static bool is_plain(split_rule const& rule) {
    return rule.behaviour == split_behaviour::isolated && !rule.invert;
  }
  static json split(split_rule const& rule) {
    if (rule.pattern == patterns::digit && is_plain(rule))
      return {{"type", "Digits"}, {"individual_digits", true}};
    return {{"type", "Split"},
            {"pattern", {{"Regex", rule.pattern}}},
            {"behavior", name_of(rule.behaviour)},
            {"invert", rule.invert}};
  }

  /// What comes around a text.
  json ends() const {
    if (from_.before.empty() && from_.behind.empty()) return byte_level(true, true);
    auto special = json::object();
    auto const around = [&](json& items, std::vector<std::int32_t> const& ids, int type) {
      for (auto const id : ids) {
        auto const name = spelled(id);
        items.push_back({{"SpecialToken", {{"id", name}, {"type_id", type}}}});
        special[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
      }
    };
    auto single = json::array(), pair = json::array();
    for (auto* const items : {&single, &pair})
      for (int type = 0; type < (items == &pair ? 2 : 1); ++type) {
        around(*items, from_.before, type);
        items->push_back({{"Sequence", {{"id", type == 0 ? "A" : "B"}, {"type_id", type}}}});
        around(*items, from_.behind, type);
      }
    return {{"type", "TemplateProcessing"},
            {"single", std::move(single)},
            {"pair", std::move(pair)},
            {"special_tokens", std::move(special)}};
  }

  json model() const {
    auto vocabulary = json::object();
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(from_.tokens.size()); ++id) {
      auto const [place, is_new] = vocabulary.emplace(spelled(id), id);
      if (!is_new)
        throw failure("tokens " + place.value().dump() + " and " + std::to_string(id) +
                      " are both spelled " + shown(place.key()) +
                      ", and tokenizer.json tells tokens apart by that");
    }
    auto merges = json::array();
    for (auto const& rule : from_.merges)  // pairs are not read by versions before 0.20
      merges.push_back(spelled(rule.left) + ' ' + spelled(rule.right));
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", from_.unknown < 0 ? json(nullptr) : json(spelled(from_.unknown))},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", from_.ignore_merges},
            {"vocab", std::move(vocabulary)},
            {"merges", std::move(merges)}};
  }

  tokenizer_parts const& from_;
};

}  // namespace detail

/// The document. Throws where its form has no words for what the tokenizer does; of one that was
/// read from such a document it has.
inline nlohmann::json to_json(tokenizer const& t) {
  return detail::tokenizer_json_writer(t.parts()).run();
}

}  // namespace lm
