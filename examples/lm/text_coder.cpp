// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "text_coder.hpp"

#include <array>
#include <filesystem>
#include <limits>
#include <utility>

#include "checkpoint.hpp"
#include "config.hpp"
#include "failure.hpp"
#include "formats/gguf.hpp"
#include "formats/hugging_face.hpp"
#include "formats/mapped_file.hpp"
#include "tokenizer/chat_prompt.hpp"
#include "tokenizer/tokenizer.hpp"
#include "tokenizer/tokenizer_gguf.hpp"
#include "tokenizer/tokenizer_json.hpp"
#include "tokenizer/tokenizer_writer.hpp"

namespace lm {
namespace {

/// What a GGUF file says of its tokenizer; keys of others are not read.
gguf_vocabulary vocabulary_of(gguf_metadata const& of) {
  auto const key = [](char const* name) { return std::string("tokenizer.ggml.") + name; };
  auto const id = [&](char const* name) {
    auto const full = key(name);
    return of.has(full) ? of.integer(full, -1, std::numeric_limits<std::int32_t>::max())
                        : std::int64_t{-1};
  };
  auto const flag = [&](char const* name) {
    auto const full = key(name);
    return of.has(full) && of.boolean(full);
  };
  gguf_vocabulary v;
  v.model = std::string(of.text(key("model")));
  if (of.has(key("pre"))) v.pre = std::string(of.text(key("pre")));
  for (auto const token : of.texts(key("tokens"))) v.tokens.emplace_back(token);
  for (auto const type : of.integers(key("token_type")))
    v.types.push_back(static_cast<std::int32_t>(type));
  for (auto const merge : of.texts(key("merges"))) v.merges.emplace_back(merge);
  v.bos = id("bos_token_id"), v.eos = id("eos_token_id");
  if (of.has(key("add_bos_token"))) v.add_bos = flag("add_bos_token");
  v.add_eos = flag("add_eos_token");
  v.add_space_prefix = flag("add_space_prefix");
  return v;
}

/// Files that name another whose tokens are theirs: a run, what was exported of it, and so on.
constexpr int most_links = 8;

text_coder coder_at(std::string const& path, int links);

/// What a file says of its training names the one with its tokens; empty where it names none.
std::string named_tokenizer(nlohmann::ordered_json const& training) {
  if (!training.is_object() || !training.contains("tokenizer")) return "";
  auto const& name = training["tokenizer"];
  return name.is_string() ? name.get<std::string>() : "";
}

text_coder coder_named_by(std::string const& path, std::string const& from, int links) {
  if (links == most_links) throw failure(path + ": names another file again");
  if (links > 0) return coder_at(from, links + 1);
  try {
    return coder_at(from, 1);
  } catch (failure const& error) {
    throw failure(path +
                  ": its tokens are those of another file, which it was trained or exported from "
                  "and which must stay where it was: " +
                  error.what());
  }
}

/// That of a checkpoint: of the file whose tokens its training took.
text_coder coder_of_run(std::string const& path, int links) {
  auto const from = named_tokenizer(load_training(path));
  return from.empty() ? text_coder() : coder_named_by(path, from, links);
}

/// What a template for conversations begins them with, as far as that is known: it is not run.
std::string system_in(std::string_view chat_template) {
  bool const known = chat_template.find(smollm2_system) != std::string_view::npos;
  return std::string(known ? smollm2_system : "");
}

std::string system_of_folder(std::string const& folder) {
  for (auto const* name : {"chat_template.jinja", "tokenizer_config.json"}) {
    auto const path = std::filesystem::path(folder) / name;
    std::error_code unknown;
    if (!std::filesystem::is_regular_file(path, unknown)) continue;
    if (std::filesystem::file_size(path, unknown) == 0) continue;
    mapped_file const file(path.string());
    auto const bytes = file.bytes();
    if (auto s = system_in({reinterpret_cast<char const*>(bytes.data()), bytes.size()}); !s.empty())
      return s;
  }
  return "";
}

/// That of a folder: its own, or of the file that it was exported from. What has 256 tokens and
/// none of these reads bytes.
text_coder coder_of_folder(std::string const& folder, std::string const& source, int links) {
  std::error_code unknown;
  auto const file = std::filesystem::path(folder) / "tokenizer.json";
  if (std::filesystem::exists(file, unknown))
    return text_coder(read_tokenizer_json(file.string()),
                      {source, load_end_tokens(folder), {}, system_of_folder(folder)});
  if (auto const from = named_tokenizer(load_recipe(folder).training); !from.empty())
    return coder_named_by(folder, from, links);
  if (auto const vocab = load_hugging_face_config(folder).vocab; vocab != 256)
    throw failure(folder + ": has no tokenizer.json, and its " + std::to_string(vocab) +
                  " tokens are no bytes, of which there are 256; copy the tokenizer.json of the "
                  "model that it was made from into it");
  return {};
}

text_coder coder_at(std::string const& path, int links) {
  std::error_code unknown;
  auto const source = std::filesystem::absolute(path, unknown).string();
  if (std::filesystem::is_directory(path, unknown)) return coder_of_folder(path, source, links);
  if (!gguf_file::recognises(mapped_file(path).bytes())) return coder_of_run(path, links);
  gguf_file const file(path);
  if (!file.metadata().has("tokenizer.ggml.model")) return {};
  std::string const key = "tokenizer.chat_template";
  auto const chat = file.metadata().has(key) ? std::string(file.metadata().text(key)) : "";
  return text_coder(make_tokenizer(vocabulary_of(file.metadata())),
                    {source, {}, chat, system_in(chat)});
}

}  // namespace

text_coder::text_coder(tokenizer by, tokenizer_facts about)
    : tokenizer_(std::make_shared<tokenizer const>(std::move(by))), about_(std::move(about)) {
  if (about_.ends.empty() && tokenizer_->eos() >= 0) about_.ends = {tokenizer_->eos()};
  for (auto const token : about_.ends)
    if (token >= size())
      throw failure(about_.source + ": eos_token_id has " + std::to_string(token) +
                    "; the tokenizer's tokens are 0 to " + std::to_string(size() - 1));
}

std::int32_t text_coder::size() const noexcept { return bytes() ? 256 : tokenizer_->size(); }

std::vector<std::int32_t> text_coder::encode(std::string_view text, bool special, bool ends) const {
  if (!bytes()) return tokenizer_->encode(text, {.ends = ends, .special = special});
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (char const c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string text_coder::decode(std::int32_t token) const {
  return bytes() ? std::string(1, static_cast<char>(token)) : tokenizer_->bytes(token);
}

std::vector<named_text> text_coder::files() const {
  nlohmann::json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                           {"clean_up_tokenization_spaces", false}};
  auto const name = [&](char const* key, std::int32_t token) {
    if (token >= 0) config[key] = spelled(tokenizer_->parts(), token);
  };
  name("bos_token", tokenizer_->bos());
  name("eos_token", ends().empty() ? -1 : ends().front());
  name("unk_token", tokenizer_->parts().unknown);
  if (!about_.chat_template.empty()) config["chat_template"] = about_.chat_template;
  try {
    return {{"tokenizer.json", to_json(*tokenizer_).dump(1) + "\n"},
            {"tokenizer_config.json", config.dump(1) + "\n"}};
  } catch (nlohmann::json::type_error const&) {
    throw failure("a token or the template for conversations is no UTF-8, which JSON must be");
  }
}

std::vector<std::int32_t> text_coder::encode_chat(std::string_view question,
                                                  std::string const* system) const {
  if (bytes()) throw failure("--chat needs a model with a tokenizer; this one reads bytes");
  std::array<chat_message, 1> const messages = {{{"user", std::string(question)}}};
  return chat_tokens(*tokenizer_, messages, system == nullptr ? about_.system : *system);
}

text_coder load_text_coder(std::string const& model_path) { return coder_at(model_path, 0); }

void require_vocabulary(text_coder const& coder, model_config const& config) {
  if (coder.size() <= config.vocab) return;
  throw failure("the model has " + std::to_string(config.vocab) + " tokens; its text takes " +
                std::to_string(coder.size()) + (coder.bytes() ? ", one per byte" : ""));
}

token_text::token_text(std::vector<std::span<std::uint8_t const>> const& blocks,
                       text_coder const& by) {
  for (auto const& block : blocks)
    blocks_.push_back(by.encode({reinterpret_cast<char const*>(block.data()), block.size()}));
}

std::vector<std::span<std::int32_t const>> token_text::blocks() const {
  return {blocks_.begin(), blocks_.end()};
}

}  // namespace lm
