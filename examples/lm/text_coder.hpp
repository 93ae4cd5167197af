// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model's text as its tokens, and back: bytes, or what its tokenizer makes of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lm {

class tokenizer;
struct model_config;

/// What files say beside their tokenizer.
struct tokenizer_facts {
  std::string source = {};              ///< the file or folder that it was read from
  std::vector<std::int32_t> ends = {};  ///< as text_coder::ends; empty: the tokenizer says
  std::string chat_template = {};  ///< in Jinja, for who can run it; empty: none, or of a folder
  std::string system = {};  ///< what a conversation begins with where nobody says; empty: nothing
};

/// A file that is not written yet.
struct named_text {
  std::string name, content;
};

/// Without a tokenizer, token b is byte b. Threads: const calls at the same time.
class text_coder {
 public:
  text_coder() = default;
  /// Throws where a token that ends texts is none of the tokenizer's.
  explicit text_coder(tokenizer by, tokenizer_facts about = {});

  bool bytes() const noexcept { return tokenizer_ == nullptr; }
  /// The file or folder that has the tokenizer, its whole path; empty where tokens are bytes.
  std::string const& source() const noexcept { return about_.source; }
  /// Ids are below this.
  std::int32_t size() const noexcept;
  /// The tokens after which a model says nothing more, the one that it is trained with first; empty
  /// where tokens are bytes, or nothing is known of one.
  std::vector<std::int32_t> const& ends() const noexcept { return about_.ends; }
  bool ends(std::int32_t token) const noexcept { return std::ranges::count(ends(), token) > 0; }

  /// Special tokens are found in the text where `special`; `ends` puts around it what the model was
  /// trained to see there.
  std::vector<std::int32_t> encode(std::string_view text, bool special = false,
                                   bool ends = false) const;
  std::string decode(std::int32_t token) const;

  /// tokenizer.json and tokenizer_config.json, as transformers loads them. Not where tokens are
  /// bytes. Throws where these files cannot say what the tokenizer does.
  std::vector<named_text> files() const;

  /// A question as models for conversations expect it, up to where the answer begins, after what they
  /// are told first; null: what is usual for this one. Throws where the tokenizer has no marks of
  /// ChatML.
  std::vector<std::int32_t> encode_chat(std::string_view question,
                                        std::string const* system = nullptr) const;

 private:
  std::shared_ptr<tokenizer const> tokenizer_;
  tokenizer_facts about_;
};

/// That of a model file or folder: of GGUF's metadata, of a folder's tokenizer.json, of the file that
/// a checkpoint's or an exported folder's tokens came from; bytes where there is none of these.
/// Throws where that file is gone, and where a folder that names none has not 256 tokens.
text_coder load_text_coder(std::string const& model_path);

/// Throws where a model has too few tokens for what the coder makes.
void require_vocabulary(text_coder const& coder, model_config const& config);

/// A text in blocks, each one's tokens in one piece. What `blocks` show lives in here.
class token_text {
 public:
  token_text() = default;
  token_text(std::vector<std::span<std::uint8_t const>> const& blocks, text_coder const& by);

  std::vector<std::span<std::int32_t const>> blocks() const;

 private:
  std::vector<std::vector<std::int32_t>> blocks_;
};

}  // namespace lm
