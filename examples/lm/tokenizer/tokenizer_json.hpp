// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Reads tokenizer.json, the file of Hugging Face's `tokenizers`, where its model is byte-level BPE.
// What such a file may say and this program cannot do is refused with its place in the file, and so
// is what contradicts itself. Its truncation and padding are not applied.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "text.hpp"
#include "tokenizer/json_fields.hpp"
#include "tokenizer/json_steps.hpp"
#include "tokenizer/tokenizer.hpp"

namespace lm {

/// What a file may bring; those of Llama 3, Qwen and Gemma have 130 to 260 thousand tokens.
inline constexpr std::int32_t most_tokens = 1 << 24;
inline constexpr std::size_t longest_added_token = 1024;

namespace detail {

/// Tokens by their spelling while a file is read.
using token_ids = std::unordered_map<std::string_view, std::int32_t>;

class tokenizer_json_reader {
 public:
  explicit tokenizer_json_reader(nlohmann::json const& document)
      : root_(document, ""), model_(root_["model"]) {}

  tokenizer_parts run() {
    check_model();
    read_vocabulary();
    read_added();
    check_dense();
    read_merges();
    parts_.nfc = reads_nfc(root_["normalizer"]);
    parts_.splits = read_splits(root_["pre_tokenizer"]);
    check_decoder(root_["decoder"]);
    read_ends(root_["post_processor"], static_cast<std::int32_t>(parts_.tokens.size()), parts_);
    return std::move(parts_);
  }

 private:
  void check_model() {
    if (auto const type = model_["type"]; type.text() != "BPE") type.refuse_value("BPE");
    auto const dropout = model_["dropout"];
    if (!dropout.is_null() && dropout.value() != 0) dropout.refuse_value("null");
    for (auto const* const key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      auto const affix = model_[key];
      if (!affix.is_null() && !affix.text().empty()) affix.refuse_value("empty");
    }
    if (auto const fallback = model_["byte_fallback"]; fallback.flag(false))
      fallback.refuse_value("false: byte-level models need none");
    if (auto const fuse = model_["fuse_unk"]; fuse.flag(false) && !model_["unk_token"].is_null())
      fuse.refuse_value("false");
    parts_.ignore_merges = model_["ignore_merges"].flag(false);
  }

  void read_vocabulary() {
    auto const vocabulary = model_["vocab"];
    if (!vocabulary.value().is_object()) vocabulary.refuse_value("an object");
    for (auto const& [spelled, id] : vocabulary.value().items()) {
      json_field const field(id, "model.vocab[" + shown(spelled) + "]");
      auto const number = field.number(most_tokens);
      ids_.emplace(spelled, number);
      auto bytes = spelled_bytes(spelled);
      bool const is_text = bytes && !bytes->empty();
      put(field, number, is_text ? *std::move(bytes) : spelled, is_text);
    }
    auto const unknown = model_["unk_token"];
    if (unknown.is_null()) return;
    auto const found = ids_.find(unknown.text());
    if (found == ids_.end()) unknown.refuse_value("a token of model.vocab");
    parts_.unknown = found->second;
  }

  /// Keeps a token until all ids are known; a file could name an id that no memory holds.
  void put(json_field const& field, std::int32_t id, std::string bytes, bool is_text) {
    auto const [there, is_new] = tokens_.try_emplace(id, std::move(bytes), is_text);
    if (!is_new)
      field.refuse("has the id " + std::to_string(id) + ", which " + shown(there->second.first) +
                   " has, too");
  }

  void read_added() {
    auto const list = root_["added_tokens"];
    if (list.is_null()) return;
    std::unordered_set<std::string_view> contents;
    for (std::size_t i = 0; i < list.length(); ++i) {
      auto const entry = list.item(i);
      auto const& content = entry["content"].text();
      if (content.empty() || content.size() > longest_added_token)
        entry["content"].refuse("has " + std::to_string(content.size()) +
                                " bytes; it must have 1 to " + std::to_string(longest_added_token));
      if (!contents.insert(content).second) entry["content"].refuse_value("in the list once");
      auto const id = entry["id"].number(most_tokens);
      auto const known = ids_.find(content);
      if (known == ids_.end()) put(entry, id, content, false);
      if (known != ids_.end() && known->second != id)
        entry["id"].refuse_value(std::to_string(known->second) + ", as in model.vocab");
      parts_.added.push_back({id, content, entry["special"].flag(false),
                              entry["single_word"].flag(false), entry["lstrip"].flag(false),
                              entry["rstrip"].flag(false), entry["normalized"].flag(false)});
    }
  }

  void check_dense() {
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(tokens_.size()); ++id) {
      auto const found = tokens_.find(id);
      if (found == tokens_.end())
        throw failure("model.vocab and added_tokens have " + std::to_string(tokens_.size()) +
                      " tokens and none of the id " + std::to_string(id) +
                      "; ids must have no holes");
      parts_.tokens.push_back(std::move(found->second.first));
      parts_.is_text.push_back(found->second.second);
    }
    if (tokens_.empty()) model_["vocab"].refuse("is empty");
  }

  std::int32_t id_of(json_field const& entry, std::string_view spelled) const {
    auto const found = ids_.find(spelled);
    if (found == ids_.end())
      entry.refuse_value("of tokens in model.vocab; " + shown(spelled) + " is not there");
    return found->second;
  }

  void read_merges() {
    auto const merges = model_["merges"];
    std::unordered_set<std::uint64_t> pairs;
    for (std::size_t i = 0; i < merges.length(); ++i) {
      auto const entry = merges.item(i);
      auto const [left, right] = two_of(entry);
      merge_rule const rule{id_of(entry, left), id_of(entry, right),
                            id_of(entry, std::string(left) + std::string(right))};
      auto const pair =
          static_cast<std::uint64_t>(rule.left) << 32 | static_cast<std::uint32_t>(rule.right);
      // Which of two ranks would hold depends on who reads.
      if (!pairs.insert(pair).second) entry.refuse_value("in the list once");
      parts_.merges.push_back(rule);
    }
  }

  /// "a b" or ["a", "b"].
  static std::pair<std::string_view, std::string_view> two_of(json_field const& entry) {
    if (entry.value().is_array()) {
      if (entry.length() != 2) entry.refuse_value("two strings");
      return {entry.item(0).text(), entry.item(1).text()};
    }
    std::string_view const text = entry.text();
    auto const space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos)
      entry.refuse_value("two tokens with one space between them");
    return {text.substr(0, space), text.substr(space + 1)};
  }

  json_field root_, model_;
  token_ids ids_;  // of model.vocab; the document holds the spellings
  std::unordered_map<std::int32_t, std::pair<std::string, bool>> tokens_;
  tokenizer_parts parts_;
};

}  // namespace detail

/// Throws `failure`, with the place in the document, where this is no tokenizer that can be had.
inline tokenizer parse_tokenizer_json(std::string_view text) {
  auto const document = nlohmann::json::parse(text, nullptr, false);
  if (document.is_discarded()) throw failure("this is no JSON");
  if (!document.is_object()) throw failure("this is JSON and no object");
  return tokenizer(detail::tokenizer_json_reader(document).run());
}

/// The same of a file.
inline tokenizer read_tokenizer_json(std::string const& path) {
  auto const bytes = read_file(path);
  try {
    return parse_tokenizer_json({reinterpret_cast<char const*>(bytes.data()), bytes.size()});
  } catch (failure const& error) {
    throw failure(path + ": " + error.what(), error.code());
  }
}

}  // namespace lm
