// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The ids of hostile texts are those of the package `tokenizers`, whether the vocabulary comes from
// a tokenizer.json or as GGUF has it.
#include "fixtures.hpp"

#include <string>
#include <utility>

namespace {

void check_all(lm::tokenizer const& by, std::string const& name, bool round_trip = true) {
  auto const cases = fixtures::json(name + ".cases.json");
  REQUIRE(cases.size() > 100);
  for (auto const& expected : cases) fixtures::check_case(by, expected, round_trip);
}

}  // namespace

TEST_CASE("tokenizer.json: GPT-2's kind") {
  if (!fixtures::has_pcre2) return;
  check_all(fixtures::tokenizer("gpt2"), "gpt2");
}

TEST_CASE("tokenizer.json: Llama 3's kind, which ignores merges and wants ends") {
  if (!fixtures::has_pcre2) return;
  auto const by = fixtures::tokenizer("llama3");
  check_all(by, "llama3");
  CHECK(by.bos() == by.added("<|begin_of_text|>")->id);
  CHECK(by.eos() == by.added("<|eot_id|>")->id);
  CHECK(by.encode("", {.ends = true}) == fixtures::ids{by.bos(), by.eos()});
}

TEST_CASE("tokenizer.json: Qwen's kind, which normalises") {
  if (!fixtures::has_pcre2 || !fixtures::has_utf8proc) return;
  check_all(fixtures::tokenizer("qwen"), "qwen");
}

TEST_CASE("tokenizer.json: SmolLM2's kind, whose alphabet has gaps") {
  if (!fixtures::has_pcre2) return;
  auto const by = fixtures::tokenizer("smollm2");
  check_all(by, "smollm2", false);
  auto const lost = by.lost_bytes();
  REQUIRE(lost.size() == 16);
  CHECK(lost.front() == 0xF0);
  CHECK(by.encode("\xF1").empty());
}

TEST_CASE("tokenizer.json: every behaviour of Split, every flag of added tokens") {
  if (!fixtures::has_pcre2 || !fixtures::has_utf8proc) return;
  auto const by = fixtures::tokenizer("odd");
  check_all(by, "odd", false);
  CHECK(by.encode("\xFF") == fixtures::ids{by.added("<unk>")->id});
}

TEST_CASE("GGUF: the same vocabularies, by their names of patterns") {
  if (!fixtures::has_pcre2) return;
  check_all(lm::make_tokenizer(fixtures::gguf("gpt2", "gpt-2")), "gpt2");
  check_all(lm::make_tokenizer(fixtures::gguf("smollm2", "smollm")), "smollm2", false);
  if (fixtures::has_utf8proc)
    check_all(lm::make_tokenizer(fixtures::gguf("qwen", "qwen2")), "qwen");
  auto llama = fixtures::gguf("llama3", "llama-bpe");
  auto const like = fixtures::tokenizer("llama3");
  llama.bos = like.bos();
  llama.eos = like.eos();
  CHECK(lm::make_tokenizer(llama).encode("", {.ends = true}) == fixtures::ids{like.bos()});
  llama.add_eos = true;
  check_all(lm::make_tokenizer(llama), "llama3");
}
