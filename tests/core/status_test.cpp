// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <strata/status.hpp>

#include "support/print.hpp"

using strata::describe;
using strata::errc;
using strata::result;
using strata::status;
using strata::tensor;

static_assert(std::is_trivially_copyable_v<status>);
static_assert(std::is_trivially_copyable_v<strata::message>);

namespace {

std::string text_of(status s) { return describe(s).c_str(); }

bool contains(std::string const& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// Every code there is: they count up from ok without a gap, and what follows the last is unknown.
std::vector<errc> all_codes() {
  std::vector<errc> codes;
  for (auto c = errc::ok; strata::detail::sentence(c) != "unknown error";
       c = static_cast<errc>(static_cast<int>(c) + 1))
    codes.push_back(c);
  return codes;
}

constexpr auto lowest = std::numeric_limits<std::int64_t>::min();
constexpr auto highest = std::numeric_limits<std::int64_t>::max();

}  // namespace

TEST_CASE("every code has a sentence of its own") {
  auto const codes = all_codes();
  CHECK(codes.size() > static_cast<std::size_t>(errc::unsupported));
  std::set<std::string_view> sentences;
  for (auto const c : codes) sentences.insert(strata::detail::sentence(c));
  CHECK(sentences.size() == codes.size());
  for (int beyond = 0; beyond < 20; ++beyond) {
    auto const code = static_cast<errc>(static_cast<int>(codes.size()) + beyond);
    CHECK(text_of({code, {}, 0, 0}) == "unknown error");
  }
  CHECK(text_of({static_cast<errc>(-1), {}, 0, 0}) == "unknown error");
}

TEST_CASE("no sentence keeps a placeholder or is cut, whatever the numbers") {
  for (auto const code : all_codes()) {
    auto const longest = text_of({code, {std::numeric_limits<int>::max()}, lowest, lowest});
    auto const sentence = std::string(strata::detail::sentence(code));
    CAPTURE(sentence);
    CHECK(longest.size() < 255);
    CHECK_FALSE(contains(longest, "{"));
    CHECK_FALSE(contains(longest, "}"));
    CHECK(longest.ends_with(sentence.substr(sentence.rfind('}') + 1)));  // npos + 1 is 0
  }
}

TEST_CASE("each placeholder is replaced by its own number") {
  for (auto const code : all_codes()) {
    auto const sentence = std::string(strata::detail::sentence(code));
    auto const text = text_of({code, {11}, 2222, 333333});
    CAPTURE(sentence);
    CHECK(contains(text, "11") == contains(sentence, "{l}"));
    CHECK(contains(text, "2222") == (contains(sentence, "{v}") || contains(sentence, "{f}")));
    CHECK(contains(text, "333333") == contains(sentence, "{b}"));
  }
}

TEST_CASE("a description names the layer, the value and the bound") {
  CHECK(text_of({}) == "ok");
  CHECK(text_of({errc::source_above_reader, {3}, 5, 3}) ==
        "layer 3 reads layer 5, which comes later; a source is at most 3");
  CHECK(text_of({errc::out_of_k_blocks, {}, 12, 100}) ==
        "12 blocks for K are missing; 100 are free");
}

TEST_CASE("where no layer is concerned, none is named") {
  status const heads{errc::heads_not_divisible, {}, 3, 4};
  auto const sentence = "q_heads is 3; a multiple of the 4 KV heads is needed, and not 0";
  CHECK(text_of(heads) == sentence);
  CHECK(text_of({heads.code, {0}, 3, 4}) == std::string("layer 0: ") + sentence);
}

TEST_CASE("a tensor that is null is called by its name") {
  CHECK(text_of(null_pointer(tensor::d_q)) == "d_q is null");
  CHECK(text_of(null_pointer(tensor::k_scales, {2})) == "layer 2: k.scales is null");
  std::set<std::string> names;
  auto which = tensor::q;
  for (; strata::detail::name(which) != "a tensor";
       which = tensor{static_cast<std::int64_t>(which) + 1})
    names.insert(std::string(strata::detail::name(which)));
  CHECK(which > tensor::rope_sin);
  CHECK(names.size() == static_cast<std::size_t>(which));
}

TEST_CASE("a parse error shows the text and marks the character") {
  status const s{errc::parse_trailing_text, {}, 6, 0};
  auto const shown = [](status state, std::string_view text) {
    return std::string(describe(state, text).c_str());
  };
  CHECK(shown(s, "every:four") == text_of(s) + "\n  every:four\n        ^");
  CHECK(shown({s.code, {}, 0, 0}, "x") == text_of({s.code, {}, 0, 0}) + "\n  x\n  ^");
  // An error of another kind has no character, and a character beyond the text is in no picture.
  status const other{errc::out_of_memory, {}, 6, 0};
  CHECK(shown(other, "every:four") == text_of(other));
  CHECK(shown({s.code, {}, 2, 0}, "x") == text_of({s.code, {}, 2, 0}));
  CHECK(shown({s.code, {}, highest, 0}, "x") == text_of({s.code, {}, highest, 0}));
}

TEST_CASE("the text with its mark may fill the message to the last character") {
  status const s{errc::parse_trailing_text, {}, 6, 0};
  auto const room = 255 - text_of(s).size() - 6 - 7;  // new lines, indents, spaces and the mark
  std::string const fits(room, 'x');
  CHECK(std::string_view(describe(s, fits)).size() == 255);
  CHECK(std::string_view(describe(s, fits)).ends_with("\n        ^"));
}

TEST_CASE("of a text that is too long, what stands around the character is shown") {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>('a' + i % 26);
  auto const shown = [&](std::size_t offset) {
    status const s{errc::parse_trailing_text, {}, static_cast<std::int64_t>(offset), 0};
    auto const all = std::string(describe(s, text).c_str());
    REQUIRE(all.starts_with(text_of(s) + "\n  "));
    return all.substr(text_of(s).size() + 1);
  };
  auto const mark = [](std::size_t at) { return "\n  " + std::string(at, ' ') + "^"; };
  CHECK(shown(6) == "  " + text.substr(0, 36) + "..." + mark(6));
  CHECK(shown(30) == "  " + text.substr(0, 60) + "..." + mark(30));
  CHECK(shown(31) == "  ..." + text.substr(1, 60) + "..." + mark(33));
  CHECK(shown(150) == "  ..." + text.substr(120, 60) + "..." + mark(33));
  CHECK(shown(270) == "  ..." + text.substr(240) + mark(33));
  CHECK(shown(300) == "  ..." + text.substr(270) + mark(33));
  // Every code of a parsed text has the room.
  for (auto const code : all_codes()) {
    if (code < errc::parse_unknown_strategy || code > errc::parse_first_layer_must_lead) continue;
    status const s{code, {255}, 150, 255};
    CHECK(std::string(describe(s, text).c_str()).ends_with(mark(33)));
  }
}

TEST_CASE("numbers of every size are written out in full") {
  auto const number = [](std::int64_t n) { return text_of({errc::out_of_memory, {}, n, 0}); };
  CHECK(number(0) == "0 bytes could not be allocated");
  CHECK(number(-1) == "-1 bytes could not be allocated");
  CHECK(number(10) == "10 bytes could not be allocated");
  CHECK(number(1234567890123456789) == "1234567890123456789 bytes could not be allocated");
  CHECK(number(highest) == "9223372036854775807 bytes could not be allocated");
  CHECK(number(lowest) == "-9223372036854775808 bytes could not be allocated");
}

TEST_CASE("a probability is written as the fraction that was given") {
  auto const number = [](std::int64_t millionths) {
    auto const text = text_of({errc::not_a_probability, {}, millionths, 1});
    return text.substr(text.rfind(' ') + 1);
  };
  CHECK(number(1'500'000) == "1.5");
  CHECK(number(-100'000) == "-0.1");
  CHECK(number(-2'000'000) == "-2");
  CHECK(number(-2'050'001) == "-2.050001");
  CHECK(number(0) == "0");
  CHECK(number(1'000'001) == "1.000001");
  CHECK(number(lowest) == "-9223372036854.775808");
  CHECK(number(highest) == "9223372036854.775807");
  char room[4] = {'x', 'x', 'x', 'x'};
  CHECK(strata::detail::append_millionths(room, room + 3, 1'250'000) == room + 3);
  CHECK(std::string_view(room, 4) == "1.2x");
  CHECK(strata::detail::append_millionths(room, room, -1) == room);
}

TEST_CASE("a number that does not fit is cut and nothing is written behind it") {
  char room[4] = {'x', 'x', 'x', 'x'};
  CHECK(strata::detail::append_number(room, room + 3, -12345) == room + 3);
  CHECK(std::string_view(room, 4) == "-12x");
  CHECK(strata::detail::append_number(room, room, 7) == room);
  CHECK(room[0] == '-');
}

TEST_CASE("descriptions are made at compile time as well") {
  static_assert(std::string_view(describe({errc::no_layers, {}, 0, 1})) ==
                "the model has 0 layers; at least 1 is needed");
}

TEST_CASE("only ok is ok, and equality sees every field") {
  CHECK(status{}.ok());
  for (auto const code : all_codes()) CHECK(status{code, {}, 0, 0}.ok() == (code == errc::ok));
  status const s{errc::class_mismatch, {1}, 2, 3};
  CHECK(s == status{errc::class_mismatch, {1}, 2, 3});
  CHECK(s != status{errc::stage_mismatch, {1}, 2, 3});
  CHECK(s != status{errc::class_mismatch, {0}, 2, 3});
  CHECK(s != status{errc::class_mismatch, {1}, 0, 3});
  CHECK(s != status{errc::class_mismatch, {1}, 2, 0});
}

TEST_CASE("a result holds a value or the reason why there is none") {
  result<int> const good = 42;
  CHECK(good.ok());
  CHECK(static_cast<bool>(good));
  CHECK(*good == 42);
  CHECK(good.state() == status{});

  status const reason{errc::out_of_memory, {}, 7, 0};
  result<int> const bad = reason;
  CHECK_FALSE(bad.ok());
  CHECK_FALSE(static_cast<bool>(bad));
  CHECK(bad.state() == reason);
}

TEST_CASE("a result carries what can only be moved") {
  auto const make = [](bool succeed) -> result<std::unique_ptr<int>> {
    if (!succeed) return status{errc::out_of_memory, {}, 4, 0};
    return std::make_unique<int>(5);
  };
  static_assert(std::is_nothrow_move_constructible_v<result<std::unique_ptr<int>>>);
  CHECK_FALSE(make(false).ok());
  auto made = make(true);
  *made.operator->() = std::make_unique<int>(6);
  CHECK(**made == 6);
  std::unique_ptr<int> const taken = *std::move(made);
  CHECK(*taken == 6);
  CHECK(*make(true).value() == 5);
}

#if STRATA_HAS_EXCEPTIONS
TEST_CASE("value() gives the value, or throws the status and its sentence") {
  result<int> good = 1;
  good.value() = 2;
  CHECK(std::as_const(good).value() == 2);

  status const reason{errc::unknown_sequence, {}, 9, 3};
  result<int> bad = reason;
  CHECK_THROWS_AS(bad.value(), strata::error);
  CHECK_THROWS_AS(std::as_const(bad).value(), strata::error);
  CHECK_THROWS_AS(std::move(bad).value(), strata::error);
  try {
    bad.value();
  } catch (std::exception const& e) {
    CHECK(std::string(e.what()) == "sequence 9 is not open; 3 sequences are");
    auto const* error = dynamic_cast<strata::error const*>(&e);
    REQUIRE(error != nullptr);
    CHECK(error->state() == reason);
  }
}
#endif

TEST_CASE("sizes from outside are multiplied without overflow") {
  CHECK(*strata::checked_multiply(0, highest) == 0);
  CHECK(*strata::checked_multiply(1, highest) == highest);
  CHECK(*strata::checked_multiply(3037000499, 3037000499) == 9223372030926249001);

  auto const refused = [](std::int64_t a, std::int64_t b) {
    auto const product = strata::checked_multiply(a, b);
    CHECK_FALSE(product.ok());
    CHECK(product.state() == status{errc::size_overflow, {}, a, b});
  };
  refused(3037000500, 3037000500);  // one more, and the square passes 2^63
  refused(2, highest / 2 + 1);
  refused(highest, highest);
  refused(-1, 5);
  refused(5, -1);
  refused(-3, -4);
  refused(lowest, -1);
}
