// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A tokenizer that is written as a tokenizer.json and read again makes of hostile texts what the
// package `tokenizers` made of them.
#include "fixtures.hpp"

#include <string>

#include "tokenizer/tokenizer_writer.hpp"

namespace {

lm::tokenizer written_again(lm::tokenizer const& by) {
  return lm::parse_tokenizer_json(lm::to_json(by).dump());
}

void check_written(lm::tokenizer const& by, std::string const& name, bool round_trip = true) {
  CAPTURE(name);
  auto const written = written_again(by);
  CHECK(written.size() == by.size());
  CHECK(written.lost_bytes() == by.lost_bytes());
  for (auto const& expected : fixtures::json(name + ".cases.json"))
    fixtures::check_case(written, expected, round_trip);
}

std::string refused_form(lm::tokenizer const& by) {
  try {
    lm::to_json(by);
  } catch (lm::failure const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("tokenizer.json, written: of every kind that is read from one") {
  if (!fixtures::has_pcre2 || !fixtures::has_utf8proc) return;
  for (auto const* name : {"gpt2", "llama3", "qwen"})
    check_written(fixtures::tokenizer(name), name);
  for (auto const* name : {"smollm2", "odd"}) check_written(fixtures::tokenizer(name), name, false);
  auto const ends = written_again(fixtures::tokenizer("llama3"));
  CHECK(ends.bos() == ends.added("<|begin_of_text|>")->id);
  CHECK(ends.eos() == ends.added("<|eot_id|>")->id);
}

TEST_CASE("tokenizer.json, written: of GGUF's vocabularies") {
  if (!fixtures::has_pcre2 || !fixtures::has_utf8proc) return;
  check_written(lm::make_tokenizer(fixtures::gguf("gpt2", "gpt-2")), "gpt2");
  check_written(lm::make_tokenizer(fixtures::gguf("smollm2", "smollm")), "smollm2", false);
  check_written(lm::make_tokenizer(fixtures::gguf("qwen", "qwen2")), "qwen");
  auto llama = fixtures::gguf("llama3", "llama-bpe");
  auto const like = fixtures::tokenizer("llama3");
  llama.bos = like.bos();
  llama.eos = like.eos();
  llama.add_eos = true;
  check_written(lm::make_tokenizer(llama), "llama3");
}

TEST_CASE("tokenizer.json, written: a space in front, and what it has no words for") {
  if (!fixtures::has_pcre2) return;
  auto spaced = fixtures::gguf("gpt2", "gpt-2");
  spaced.add_space_prefix = true;
  auto const by = lm::make_tokenizer(spaced);
  CHECK(by.decode(by.encode("word")) == " word");
  for (auto const* text : {"word", " word", "two words", "\n1"})
    CHECK(written_again(by).encode(text) == by.encode(text));
  auto llama = fixtures::gguf("llama3", "llama-bpe");
  llama.add_space_prefix = true;
  CHECK(
      refused_form(lm::make_tokenizer(llama)).find("a space comes before what the pattern '(?i:") !=
      std::string::npos);
  auto twice = fixtures::gguf("gpt2", "gpt-2");
  auto const size = twice.tokens.size();
  for (int i = 0; i < 2; ++i) {
    twice.tokens.emplace_back("[unused]");
    twice.types.push_back(static_cast<std::int32_t>(lm::gguf_token_type::unused));
  }
  CHECK(refused_form(lm::make_tokenizer(twice)) ==
        "tokens " + std::to_string(size) + " and " + std::to_string(size + 1) +
            " are both spelled '[unused]', and tokenizer.json tells tokens apart by that");
}
