// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Patterns that mean the same to Oniguruma and to PCRE2 pass; others are refused at their place,
// and those that would run for ever end.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fixtures.hpp"

namespace {

std::vector<std::string> cut(std::vector<lm::split_rule> const& rules, std::string_view text) {
  std::vector<std::string> pieces;
  lm::regex_search search;
  lm::pre_tokenizer(rules).split(text, search, [&](auto piece) { pieces.emplace_back(piece); });
  return pieces;
}
std::vector<std::string> cut(std::string const& pattern, std::string_view text) {
  return cut({{.pattern = pattern}}, text);
}
using pieces = std::vector<std::string>;

}  // namespace

TEST_CASE("patterns: what the two read differently is refused, with its place") {
  constexpr std::pair<char const*, char const*> cases[] = {
      {"a\\wb", "at its byte 1: the escape \\w is not supported"},
      {"\\d", "the escape \\d"},
      {"\\b", "the escape \\b"},
      {"\\C", "the escape \\C"},
      {"\\K", "the escape \\K"},
      {"\\1", "the escape \\1"},
      {"a\\", "at its byte 1: \\ is the last character"},
      {"^a", "^ is at every line in Oniguruma"},
      {"a$", "at its byte 1: $ is at every line"},
      {"[a[b]]", "at its byte 2: a class within a class"},
      {"[a&&b]", "&& in a class"},
      {"[]a]", "an empty character class"},
      {"[^]a]", "an empty character class"},
      {"[a", "a character class is not closed"},
      {"[\\S]", "\\S in a class"},
      {"[\\s-z]", "\\s beside - in a class"},
      {"[+-\\s]", "\\s beside - in a class"},
      {"(*LIMIT_MATCH=1)a", "(* is not supported"},
      {"(?R)", "of groups that begin with (?"},
      {"(?m:a)", "of groups that begin with (?"},
      {"(?<name>a)", "of groups that begin with (?"},
      {"a{,3}", "{ begins {n}"},
      {"a{2}+", "? and + behind }"},
      {"\\p{Han}", "there are general categories"},
      {"\\p{^L}", "there are general categories"},
      {"\\pL", "there are general categories"},
      {"\\p{", "there are general categories"},
      {"\\p{Q}", "there are general categories"},
  };
  for (auto const& one : cases) {
    CAPTURE(one.first);
    CHECK_THROWS_WITH_AS(lm::translate_pattern(one.first), doctest::Contains(one.second),
                         lm::failure);
  }
  CHECK_THROWS_WITH_AS(lm::translate_pattern(std::string_view("a\0b", 3)),
                       doctest::Contains("at its byte 1: a zero byte"), lm::failure);
  CHECK_THROWS_WITH_AS(lm::translate_pattern(std::string(70'000, 'a')),
                       doctest::Contains("70000 bytes; at most 65536"), lm::failure);
}

TEST_CASE("patterns: PCRE2 names what it cannot compile, and what matches nothing is refused") {
  if (!fixtures::has_pcre2) return;
  CHECK_THROWS_WITH_AS(cut("(a", ""), doctest::Contains("missing closing parenthesis"),
                       lm::failure);
  CHECK_THROWS_WITH_AS(cut("a*", ""), doctest::Contains("matches nothing at all"), lm::failure);
  CHECK_THROWS_WITH_AS(cut("a|(?!b)", ""), doctest::Contains("matches nothing at all"),
                       lm::failure);
}

TEST_CASE("patterns: white space is Unicode's, in and out of classes") {
  if (!fixtures::has_pcre2) return;
  CHECK(cut("\\s+", "a\u00A0\u3000\u1680\u2028b\u180Ec\x1C") ==
        pieces{"a", "\u00A0\u3000\u1680\u2028", "b\u180Ec\x1C"});
  CHECK(cut("[^\\sb]+", "a\u0085b\u180E") == pieces{"a", "\u0085b", "\u180E"});
  CHECK(cut("[\\s\\-]+", "a- b") == pieces{"a", "- ", "b"});
  CHECK(cut("\\S+", "a b") == pieces{"a", " ", "b"});
}

TEST_CASE("patterns: what would run for ever reaches a limit and says so") {
  if (!fixtures::has_pcre2) return;
  CHECK_THROWS_WITH_AS(cut("(?:a|a)+(?:b|c)", std::string(60, 'a')),
                       doctest::Contains("fails on a text of 60 bytes, from its byte 0 on: match"),
                       lm::failure);
  // Nesting needs a stack: more than there is, and no crash.
  CHECK_THROWS_WITH_AS(cut("(?:a|(?:b|c)d|e)+(?:x|y)", std::string(3'000'000, 'a')),
                       doctest::Contains("fails on a text of 3000000 bytes"), lm::failure);
}

TEST_CASE("pre-tokenizer: a space in front, and steps on the parts of those before") {
  if (!fixtures::has_pcre2) return;
  CHECK(cut({{.pattern = "\\p{N}"}, {.pattern = "", .prefix_space = true}}, "ab1 c") ==
        pieces{" ab", " 1", " c"});
  CHECK(cut({{.pattern = "b", .behaviour = lm::split_behaviour::removed}, {.pattern = "a"}},
            "aabab") == pieces{"a", "a", "a"});
  CHECK(cut("x", "").empty());
}
