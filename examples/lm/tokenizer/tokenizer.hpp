// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Byte-level BPE, as GPT-2, Llama 3, Qwen and SmolLM2 use it: from text to tokens and back. A text
// goes through these, in this order: added tokens are cut out; what is left is normalised where the
// model asks for it; added tokens of normalised text are cut out; patterns cut the rest into
// pieces; each piece's bytes are merged into tokens. Ids are those of Hugging Face's `tokenizers`.
//
// That package takes Unicode alone. Here a text may be any bytes: what is no UTF-8 is a piece of
// its own, from the first such byte up to the next code point, and passes no normaliser and no
// pattern. So decode(encode(text)) == text for all texts, where each byte has a token (lost_bytes()
// is empty), nothing normalises, strips, removes or puts a space in front.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "tokenizer/added_tokens.hpp"
#include "tokenizer/bpe.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/pre_tokenizer.hpp"
#include "tokenizer/utf8.hpp"

namespace lm {

/// What a tokenizer is made of, from whatever file: tokenizer_json.hpp and tokenizer_gguf.hpp read
/// and check them.
struct tokenizer_parts {
  std::vector<std::string> tokens;  ///< [id]: the bytes of each, of added tokens their content
  std::vector<bool> is_text;        ///< [id]: made of bytes by merges
  std::vector<merge_rule> merges;   ///< by rank
  std::vector<added_token> added;   ///< also in tokens
  std::vector<split_rule> splits;   ///< the pre-tokenizer
  bool nfc = false;                 ///< the text is normalised to NFC
  bool ignore_merges = false;       ///< a piece that is a token is that token, whatever the merges
  std::int32_t unknown = -1;        ///< for bytes without a token; -1: they are left out
  std::vector<std::int32_t> before, behind;  ///< what `ends` puts around a text
  std::int32_t bos = -1, eos = -1;           ///< begin and end of a text; -1: not told
};

struct encode_options {
  bool ends = false;    ///< with what the model wants before and behind a text
  bool special = true;  ///< special tokens are found in the text; false: there they are text
};

/// Threads: const calls at the same time.
class tokenizer {
 public:
  /// Throws where a pattern cannot be compiled.
  explicit tokenizer(tokenizer_parts parts)
      : parts_(std::move(parts)),
        bpe_(byte_tokens(parts_), parts_.merges),
        pre_tokenizer_(parts_.splits),
        added_(chosen(parts_, false)),
        added_normalized_(chosen(parts_, true)) {
    if (!parts_.ignore_merges) return;
    for (std::size_t id = 0; id < parts_.tokens.size(); ++id)
      if (parts_.is_text[id]) whole_.emplace(parts_.tokens[id], static_cast<std::int32_t>(id));
    // Text that is like a special token is still text.
    for (auto const& token : parts_.added)
      if (token.special) whole_.erase(parts_.tokens[static_cast<std::size_t>(token.id)]);
  }
  tokenizer(tokenizer&&) = default;

  std::int32_t size() const noexcept { return static_cast<std::int32_t>(parts_.tokens.size()); }
  tokenizer_parts const& parts() const noexcept { return parts_; }
  std::int32_t bos() const noexcept { return parts_.bos; }
  std::int32_t eos() const noexcept { return parts_.eos; }
  /// The added token with this text; null where there is none.
  added_token const* added(std::string_view content) const noexcept {
    for (auto const& token : parts_.added)
      if (token.content == content) return &token;
    return nullptr;
  }
  /// Bytes that no token stands for.
  std::vector<std::uint8_t> lost_bytes() const {
    std::vector<std::uint8_t> lost;
    for (std::size_t byte = 0; byte < 256; ++byte)
      if (bpe_.bytes()[byte] < 0 || bpe_.bytes()[byte] == parts_.unknown)
        lost.push_back(static_cast<std::uint8_t>(byte));
    return lost;
  }

  /// Any bytes. Throws where a pattern reaches its limits. With the models that are known by name
  /// the cost is linear in the text, but for pieces (see bpe.hpp).
  std::vector<std::int32_t> encode(std::string_view text, encode_options options = {}) const {
    work now{.options = options};
    if (options.ends) now.ids = parts_.before;
    added_.split(text, options.special, now.search, [&](text_part part) {
      if (part.token >= 0) return now.ids.push_back(part.token);
      each_valid(text.substr(part.range.begin, part.range.end - part.range.begin), now);
    });
    if (options.ends) now.ids.insert(now.ids.end(), parts_.behind.begin(), parts_.behind.end());
    return std::move(now.ids);
  }

  /// The bytes of one token. Throws where there is none.
  std::string const& bytes(std::int32_t id) const {
    if (id < 0 || id >= size())
      throw failure("there is no token " + std::to_string(id) + "; this tokenizer has " +
                    std::to_string(size()));
    return parts_.tokens[static_cast<std::size_t>(id)];
  }
  /// A text may end within a character, where the tokens do.
  std::string decode(std::span<std::int32_t const> ids) const {
    std::string text;
    for (auto const id : ids) text += bytes(id);
    return text;
  }

 private:
  struct by_text {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>()(text);
    }
  };
  template <class Value>
  using text_map = std::unordered_map<std::string, Value, by_text, std::equal_to<>>;

  /// Of one call. Pieces come again and again: what they became is remembered.
  struct work {
    static constexpr std::size_t longest_kept = 64, most_kept = 1 << 18;
    struct stretch {
      std::size_t begin = 0, count = 0;
    };
    encode_options options;
    std::vector<std::int32_t> ids = {}, kept_ids = {};
    regex_search search = {};
    bpe_room room = {};
    text_map<stretch> kept = {};
  };

  static std::array<std::int32_t, 256> byte_tokens(tokenizer_parts const& parts) {
    std::array<std::int32_t, 256> bytes;
    bytes.fill(parts.unknown);
    for (std::size_t id = 0; id < parts.tokens.size(); ++id)
      if (parts.is_text[id] && parts.tokens[id].size() == 1)
        bytes[static_cast<unsigned char>(parts.tokens[id][0])] = static_cast<std::int32_t>(id);
    return bytes;
  }
  static std::vector<added_token> chosen(tokenizer_parts const& parts, bool normalized) {
    std::vector<added_token> tokens;
    for (auto const& token : parts.added) {
      if (token.normalized != normalized) continue;
      tokens.push_back(token);
      if (normalized && parts.nfc) tokens.back().content = to_nfc(token.content);
    }
    return tokens;
  }

  void each_valid(std::string_view text, work& now) const {
    while (!text.empty()) {
      auto const valid = valid_prefix(text);
      if (valid > 0) normalized(text.substr(0, valid), now);
      text.remove_prefix(valid);
      auto const invalid = invalid_prefix(text);
      if (invalid > 0) piece(text.substr(0, invalid), now);
      text.remove_prefix(invalid);
    }
  }
  void normalized(std::string_view text, work& now) const {
    std::string const changed = parts_.nfc ? to_nfc(text) : std::string();
    if (parts_.nfc) text = changed;
    pre_tokenizer::piece_function const take = [&](std::string_view part) { piece(part, now); };
    added_normalized_.split(text, now.options.special, now.search, [&](text_part part) {
      if (part.token >= 0) return now.ids.push_back(part.token);
      pre_tokenizer_.split(text.substr(part.range.begin, part.range.end - part.range.begin),
                           now.search, take);
    });
  }
  void piece(std::string_view bytes, work& now) const {
    if (bytes.size() > work::longest_kept) return merge(bytes, now);
    auto const known = now.kept.find(bytes);
    if (known != now.kept.end()) {
      auto const from = now.kept_ids.begin() + static_cast<std::ptrdiff_t>(known->second.begin);
      now.ids.insert(now.ids.end(), from, from + static_cast<std::ptrdiff_t>(known->second.count));
      return;
    }
    auto const before = now.ids.size();
    merge(bytes, now);
    if (now.kept.size() == work::most_kept) return;
    now.kept.emplace(bytes, work::stretch{now.kept_ids.size(), now.ids.size() - before});
    now.kept_ids.insert(now.kept_ids.end(), now.ids.begin() + static_cast<std::ptrdiff_t>(before),
                        now.ids.end());
  }
  void merge(std::string_view bytes, work& now) const {
    if (auto const found = whole_.find(bytes); found != whole_.end())
      return now.ids.push_back(found->second);
    bpe_.append(bytes, now.room, now.ids);
  }

  tokenizer_parts parts_;
  bpe bpe_;
  pre_tokenizer pre_tokenizer_;
  added_token_finder added_, added_normalized_;
  text_map<std::int32_t> whole_;  // where merges are ignored: every token made of bytes
};

}  // namespace lm
