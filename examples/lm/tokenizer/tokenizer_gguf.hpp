// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A tokenizer from what a GGUF file says of it in its metadata, tokenizer.ggml.*: byte-level BPE
// alone, which GGUF calls the model "gpt2". Who reads the file fills in a gguf_vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "tokenizer/json_fields.hpp"
#include "tokenizer/tokenizer.hpp"

namespace lm {

/// Keys are those behind "tokenizer.ggml.".
struct gguf_vocabulary {
  std::string model = {};                ///< model: "gpt2"
  std::string pre = {};                  ///< pre: which patterns
  std::vector<std::string> tokens = {};  ///< tokens: [id]
  std::vector<std::int32_t> types = {};  ///< token_type: [id]; see gguf_token_type
  std::vector<std::string> merges = {};  ///< merges: "a b", by rank
  std::int64_t bos = -1, eos = -1;       ///< bos_token_id, eos_token_id; -1: none
  std::optional<bool> add_bos = {};      ///< add_bos_token; where absent, Llama 3 has one
  bool add_eos = false;                  ///< add_eos_token
  bool add_space_prefix = false;         ///< add_space_prefix
};

enum class gguf_token_type : std::int32_t {
  normal = 1,
  unknown = 2,
  control = 3,       ///< special
  user_defined = 4,  ///< found in texts before all else, but not special
  unused = 5,
  byte = 6
};

namespace detail {

class tokenizer_gguf_reader {
 public:
  explicit tokenizer_gguf_reader(gguf_vocabulary const& from) : from_(from) {}

  tokenizer_parts run() {
    if (from_.model != "gpt2")
      refuse("model", shown(from_.model), "'gpt2', byte-level BPE; others are not supported");
    if (from_.tokens.empty() || from_.tokens.size() > (std::size_t{1} << 24))
      refuse("tokens", std::to_string(from_.tokens.size()) + " strings", "1 to 16777216");
    if (from_.types.size() != from_.tokens.size())
      refuse("token_type", std::to_string(from_.types.size()) + " numbers",
             std::to_string(from_.tokens.size()) + ", one for each token");
    choose_patterns();
    for (std::size_t id = 0; id < from_.tokens.size(); ++id) read_token(id);
    read_merges();
    read_ends();
    return std::move(parts_);
  }

 private:
  [[noreturn]] static void refuse(std::string const& key, std::string const& is,
                                  std::string const& wanted) {
    throw failure("tokenizer.ggml." + key + " is " + is + "; it must be " + wanted);
  }

  void choose_patterns() {
    std::string const& pre = from_.pre;
    if (pre == "gpt-2") {
      parts_.splits = {{.pattern = patterns::gpt2}};
    } else if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3") {
      parts_.splits = {{.pattern = patterns::llama3}};
      parts_.ignore_merges = true;
    } else if (pre == "smollm" || pre == "starcoder") {
      parts_.splits = {{.pattern = patterns::digit}, {.pattern = patterns::gpt2}};
    } else if (pre == "qwen2") {
      parts_.splits = {{.pattern = patterns::qwen2}};
      parts_.nfc = true;  // GGUF does not say so, but the models were trained so
    } else {
      refuse("pre", shown(pre), "gpt-2, llama-bpe, smollm, starcoder or qwen2");
    }
    parts_.splits.back().prefix_space = from_.add_space_prefix;
  }

  void read_token(std::size_t id) {
    auto const& spelled = from_.tokens[id];
    auto const key = "tokens[" + std::to_string(id) + "]";
    auto const type = static_cast<gguf_token_type>(from_.types[id]);
    bool const special = type == gguf_token_type::control || type == gguf_token_type::unknown;
    bool const added = special || type == gguf_token_type::user_defined;
    if (!added && type != gguf_token_type::normal && type != gguf_token_type::unused)
      refuse("token_type[" + std::to_string(id) + "]", std::to_string(from_.types[id]),
             "1 (normal) to 5 (unused)");
    auto bytes = spelled_bytes(spelled);
    bool const is_text = type == gguf_token_type::normal && bytes && !bytes->empty();
    if (type == gguf_token_type::normal && !is_text)
      refuse(key, shown(spelled), "bytes in GPT-2's spelling");
    if (added && (spelled.empty() || spelled.size() > 1024))
      refuse(key, std::to_string(spelled.size()) + " bytes long", "1 to 1024");
    if (type != gguf_token_type::unused &&
        !ids_.emplace(spelled, static_cast<std::int32_t>(id)).second)
      refuse(key, shown(spelled), "in the list once");
    if (added) parts_.added.push_back({static_cast<std::int32_t>(id), spelled, special});
    parts_.tokens.push_back(is_text ? *std::move(bytes) : spelled);
    parts_.is_text.push_back(is_text);
  }

  std::int32_t id_of(std::size_t rank, std::string_view spelled) const {
    auto const found = ids_.find(spelled);
    if (found == ids_.end())
      refuse("merges[" + std::to_string(rank) + "]", shown(from_.merges[rank]),
             "of tokens; " + shown(spelled) + " is none");
    return found->second;
  }

  void read_merges() {
    std::unordered_set<std::string_view> seen;
    for (std::size_t rank = 0; rank < from_.merges.size(); ++rank) {
      std::string_view const text = from_.merges[rank];
      auto const space = text.find(' ');
      auto const key = "merges[" + std::to_string(rank) + "]";
      if (space == text.npos || text.find(' ', space + 1) != text.npos)
        refuse(key, shown(text), "two tokens with one space between them");
      if (!seen.insert(text).second) refuse(key, shown(text), "in the list once");
      auto const left = text.substr(0, space), right = text.substr(space + 1);
      parts_.merges.push_back({id_of(rank, left), id_of(rank, right),
                               id_of(rank, std::string(left) + std::string(right))});
    }
  }

  std::int32_t end_of(char const* key, std::int64_t id, bool needed) const {
    if (id == -1 && !needed) return -1;
    if (id < 0 || id >= static_cast<std::int64_t>(from_.tokens.size()))
      refuse(key, std::to_string(id),
             "a token, from 0 to " + std::to_string(from_.tokens.size() - 1));
    return static_cast<std::int32_t>(id);
  }
  void read_ends() {
    bool const adds = from_.add_bos.value_or(parts_.ignore_merges && from_.bos >= 0);
    parts_.bos = end_of("bos_token_id", from_.bos, adds);
    parts_.eos = end_of("eos_token_id", from_.eos, from_.add_eos);
    if (adds) parts_.before = {parts_.bos};
    if (from_.add_eos) parts_.behind = {parts_.eos};
  }

  gguf_vocabulary const& from_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
  tokenizer_parts parts_;
};

}  // namespace detail

/// Throws `failure`, with the key, where this is no tokenizer that can be had.
inline tokenizer make_tokenizer(gguf_vocabulary const& vocabulary) {
  return tokenizer(detail::tokenizer_gguf_reader(vocabulary).run());
}

}  // namespace lm
