// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tokens_command.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "failure.hpp"
#include "text.hpp"
#include "text_coder.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace lm {
namespace {

std::string contents(std::vector<std::uint8_t> const& bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

std::string contents_of(std::string const& path) {
  return contents(path.empty() ? detail::drain(stdin, "standard input") : read_file(path));
}

void print(std::string const& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

/// A token's bytes on one line: quoted, and as JSON has them.
std::string on_one_line(std::string const& bytes) {
  bool const whole = valid_prefix(bytes) == bytes.size();
  if (whole) return nlohmann::json(bytes).dump();
  std::string hexadecimal;
  for (auto const byte : bytes) {
    char two[8];
    std::snprintf(two, sizeof two, "\\x%02X", static_cast<unsigned char>(byte));
    hexadecimal += two;
  }
  return hexadecimal;
}

/// Of a tokenizer.json, or as other commands find it.
text_coder coder_of(std::string const& path) {
  if (path.ends_with(".json")) return text_coder(read_tokenizer_json(path));
  auto coder = load_text_coder(path);
  if (coder.bytes())
    throw failure(path + " is no tokenizer.json, and no model that brings a tokenizer");
  return coder;
}

void print_ids(text_coder const& by, std::vector<std::int32_t> const& ids, bool pieces) {
  std::string lines;
  for (auto const id : ids) {
    lines += std::to_string(id);
    if (pieces) lines += '\t' + on_one_line(by.decode(id));
    lines += '\n';
  }
  print(lines);
}

void encode_texts(text_coder const& by, tokens_options const& o) {
  auto const texts = nlohmann::json::parse(contents_of(o.texts), nullptr, false);
  if (!texts.is_array()) throw failure(o.texts + ": this is no JSON array");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    json_field const field(texts[i], o.texts + ": [" + std::to_string(i) + "]");
    std::string line;
    for (auto const id : by.encode(field.text(), !o.as_text, o.ends))
      line += (line.empty() ? "" : " ") + std::to_string(id);
    print(line + '\n');
  }
}

std::vector<std::int32_t> numbers_of(std::string const& path) {
  auto const text = contents_of(path);
  std::vector<std::int32_t> numbers;
  char const *at = text.data(), *const end = at + text.size();
  while (true) {
    while (at != end && std::string_view(" \t\r\n").find(*at) != std::string_view::npos) ++at;
    if (at == end) return numbers;
    auto const [behind, error] = std::from_chars(at, end, numbers.emplace_back());
    if (error != std::errc())
      throw failure(path + ", at its byte " + std::to_string(at - text.data()) +
                    ": this is no id of a token");
    at = behind;
  }
}

}  // namespace

void run_tokens(tokens_options options) {
  auto const by = coder_of(options.tokenizer);
  if (!options.texts.empty()) return encode_texts(by, options);
  if (!options.ids.empty()) {
    std::string text;
    for (auto const id : numbers_of(options.ids)) text += by.decode(id);
    return print(text);
  }
  auto const text = contents_of(options.text);
  print_ids(by, by.encode(text, !options.as_text, options.ends), options.pieces);
}

void add_tokens_command(CLI::App& program) {
  command<tokens_options> c(
      program, "tokens",
      "What a model's tokenizer makes of a text: the ids of its tokens, one per line. Of\n"
      "byte-level BPE, as GPT-2, Llama 3, Qwen and SmolLM2 have it.",
      run_tokens);
  auto& o = c.options();
  c.app()
      .add_option("--tokenizer", o.tokenizer,
                  "tokenizer.json, the folder of a model with that file, or a GGUF file")
      ->check(CLI::ExistingPath.description(""))
      ->type_name("PATH")
      ->required();
  auto& group = *c.app().add_option_group("Input", "one of these; without, standard input");
  for (auto const& [name, path, description] :
       {std::tuple{"--text", &o.text, "a text, of any bytes"},
        {"--texts", &o.texts, "a JSON array of texts, each encoded for itself, a line of ids each"},
        {"--ids", &o.ids, "ids to decode, with white space between them"}})
    group.add_option(name, *path, description)
        ->check(CLI::ExistingFile.description(""))
        ->type_name("FILE");
  group.require_option(0, 1);
  c.app().add_flag("--ends", o.ends, "with the tokens that the model wants around a text");
  c.app().add_flag("--as-text", o.as_text,
                   "special tokens in the text are text like other, as what users write should be");
  c.app().add_flag("--pieces", o.pieces, "prints each token's bytes beside its id");
  c.footer(
      "Examples:\n"
      "  strata-lm tokens --tokenizer model.gguf --text book.txt | wc -l\n"
      "  echo 'In the beginning' | strata-lm tokens --tokenizer tokenizer.json --pieces",
      false);
}

}  // namespace lm
