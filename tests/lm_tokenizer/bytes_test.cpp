// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Any bytes: they come back as they were, and what is no UTF-8 changes nothing of what is.
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "fixtures.hpp"
#include "support/sanitized.hpp"

namespace {

/// Bytes as texts have them, and others.
std::string random_bytes(std::mt19937& random) {
  constexpr std::string_view parts[] = {
      "the ", "Lord",    " \n", "é",          "👍",           "\xF0\x9F\x91", "\xC3",
      "\xFF", "\x80",    "12",  "<|eot_id|>", "\xED\xA0\x80", "\xC0\xAF",     "\xF4\x90\x80\x80",
      "'s",   "\xE4\xBD"};
  std::string bytes;
  for (auto left = random() % 30; left > 0; --left) {
    if (random() % 3 == 0)
      bytes += static_cast<char>(random());
    else
      bytes += parts[random() % std::size(parts)];
  }
  return bytes;
}

}  // namespace

TEST_CASE("tokenizer: bytes that are no UTF-8 come back as they were") {
  if (!fixtures::has_pcre2) return;
  std::mt19937 random(2);
  for (auto const* const name : {"gpt2", "llama3"}) {
    auto const by = fixtures::tokenizer(name);
    REQUIRE(by.lost_bytes().empty());
    for (int i = 0; i < 500 / support::case_step(); ++i) {
      auto const bytes = random_bytes(random);
      CHECK(by.decode(by.encode(bytes)) == bytes);
      CHECK(by.decode(by.encode(bytes, {.special = false})) == bytes);
    }
    std::string all;
    for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
    CHECK(by.decode(by.encode(all)) == all);
  }
}

TEST_CASE("tokenizer: what is no UTF-8 parts texts that are encoded each for itself") {
  if (!fixtures::has_pcre2) return;
  auto const by = fixtures::tokenizer("llama3");
  for (std::string_view const invalid :
       {"\xFF", "\xC3", "\xE4\xBD", "\xED\xA0\x80\xF5", "\x80\x80"}) {
    std::string const before = "And God said  ", behind = "  it's 你好 1234";
    auto expected = by.encode(before);
    for (auto const& more : {by.encode(invalid), by.encode(behind)})
      expected.insert(expected.end(), more.begin(), more.end());
    CHECK(by.encode(before + std::string(invalid) + behind) == expected);
  }
}

TEST_CASE("tokenizer: long texts of one kind, as hostile users send them") {
  if (!fixtures::has_pcre2) return;
  auto const by = fixtures::tokenizer("llama3");
  auto const size = 200'000 / static_cast<std::size_t>(support::case_step());
  for (std::string const unit :
       {"a", " ", "\n", " \n", "!", "7", "'s", "\xFF", "<|eot_id", "\xCC\x81"}) {
    std::string text;
    while (text.size() < size) text += unit;
    CAPTURE(unit);
    CHECK(by.decode(by.encode(text)) == text);
  }
}

TEST_CASE("tokenizer: tokens that are none") {
  if (!fixtures::has_pcre2) return;
  auto const by = fixtures::tokenizer("gpt2");
  CHECK_THROWS_WITH_AS(by.bytes(-1), doctest::Contains("no token -1; this tokenizer has 1001"),
                       lm::failure);
  CHECK_THROWS_WITH_AS(by.bytes(by.size()), doctest::Contains("no token 1001"), lm::failure);
  CHECK(by.added("<|nothing|>") == nullptr);
}

TEST_CASE("UTF-8: all code points, and what is none") {
  auto const step = static_cast<char32_t>(support::case_step());
  for (char32_t value = 0; value < 0x110000; value += value < 0x1000 ? 1 : step) {
    if (value >= 0xD800 && value < 0xE000) continue;
    std::string text;
    lm::append_utf8(value, text);
    auto const size = value < 0x80 ? 1u : value < 0x800 ? 2u : value < 0x10000 ? 3u : 4u;
    auto const first = lm::first_code_point(text + "x"), last = lm::last_code_point("é" + text);
    bool const same = text.size() == size && first.value == value && first.bytes == size &&
                      last.value == value && last.bytes == size;
    if (!same) FAIL(static_cast<std::uint32_t>(value));
  }
  for (std::string_view const none :
       {"", "\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xC3(",
        "\xE2\x82", "\xE2\x28\xA1", "\xF0\x9F\x91", "\xF0\x28\x8C\xBC"})
    CHECK(lm::first_code_point(none).bytes == 0);
  CHECK(lm::valid_prefix("0123456789\xC3\xA9\xC3") == 12);
  CHECK(lm::invalid_prefix("\xC3\xFF\x80z") == 3);
}

TEST_CASE("GPT-2's spelling of bytes: both ways, each byte another character") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(lm::spelled_bytes(lm::spell_bytes(all)) == all);
  CHECK(lm::spell_bytes(" a\n\xC3\xA9\xAD\x7F") == "ĠaĊÃ©Ńġ");
  CHECK(!lm::spelled_bytes(" "));
  CHECK(!lm::spelled_bytes("｜"));
}
