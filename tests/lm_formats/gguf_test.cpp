// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// GGUF files that gguf-py wrote: tensors of every type come out as gguf-py has them, to the bit,
// and every kind of value as it was put in.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/gguf.hpp"
#include "lm_formats/gguf_bytes.hpp"
#include "lm_formats/refusals.hpp"

using namespace formats;

namespace {

lm::gguf_file read(std::string const& bytes) { return {as_bytes(bytes), "test.gguf"}; }

bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

}  // namespace

TEST_CASE("gguf: tensors of every type are what gguf-py makes of them") {
  lm::gguf_file const file(fixture("types.gguf"));
  auto const expected = floats(fixture("types.f32"));
  REQUIRE(file.tensors().size() == 11);
  std::size_t at = 0;
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    auto const& tensor = file.tensors()[i];
    CAPTURE(tensor.name);
    CHECK(tensor.name == "of " + tensor.type);
    CHECK(tensor.shape.front() == 4);
    auto const ours = values_of(file, i);
    REQUIRE(at + ours.size() <= expected.size());
    std::size_t different = 0;
    for (std::size_t j = 0; j < ours.size(); ++j)
      different += !same_bits(ours[j], expected[at + j]);
    CHECK(different == 0);
    at += ours.size();
  }
  CHECK(at == expected.size());
}

TEST_CASE("gguf: values of every kind") {
  lm::gguf_file const file(fixture("metadata.gguf"));
  auto const& m = file.metadata();
  constexpr auto least = INT64_MIN, most = INT64_MAX;
  struct integer {
    char const* kind;
    std::int64_t value;
  };
  for (auto const& one : {integer{"uint8", 200}, integer{"int8", -100}, integer{"uint16", 60000},
                          integer{"int16", -30000}, integer{"uint32", 4000000000},
                          integer{"int32", -2000000000}, integer{"int64", least}}) {
    CAPTURE(one.kind);
    CHECK(m.integer(std::string("test.") + one.kind, least, most) == one.value);
    CHECK(m.integers(std::string("test.list.") + one.kind) ==
          std::vector<std::int64_t>{one.value, 1});
  }
  CHECK(m.number("test.float32") == 0.1F);
  CHECK(m.number("test.float64") == 0.1);
  CHECK(m.boolean("test.yes"));
  CHECK(!m.boolean("test.no"));
  CHECK(m.text("test.text") == "na\xC3\xAFve\nline");
  CHECK(m.texts("test.list.text") ==
        std::vector<std::string_view>{"a", "", "longer than that", "\xC4\xA0the"});
  CHECK(m.numbers("test.list.float32") == std::vector<float>{0.5F, -1.25F});
  CHECK(std::ranges::is_sorted(m.entries(), {}, &lm::gguf_metadata::entry::key));
  CHECK(!m.has("test"));
  CHECK(values_of(file, 0) == std::vector<float>{1, 2, 3});
  CHECK(values_of(file, 1) == std::vector<float>{4, 5});
  CHECK(file.tensors()[1].shape == std::vector<std::int64_t>{1, 2});
}

TEST_CASE("gguf: a getter says what is wrong") {
  lm::gguf_file const file(fixture("metadata.gguf"));
  auto const& m = file.metadata();
  auto const says = [&](auto const& get, std::string const& sentence) {
    CHECK(refusal(get) == file.path() + ": " + sentence);
  };
  says([&] { m.text("absent"); }, "'absent' is missing from the metadata");
  says([&] { m.text("test.uint8"); }, "'test.uint8' is of kind uint8; should be of kind string");
  says([&] { m.integer("test.text", 0, 1); },
       "'test.text' is of kind string; should be of kind integer");
  says([&] { m.integer("test.uint8", 0, 199); },
       "'test.uint8' is 200; it must lie between 0 and 199");
  says([&] { m.integer("test.uint64", 0, INT64_MAX); },
       "'test.uint64' is 18446744073709551615; it must lie between 0 and 9223372036854775807");
  says([&] { m.integers("test.list.uint64"); }, "'test.list.uint64' has an element beyond 63 bits");
  says([&] { m.number("test.uint8"); }, "'test.uint8' is of kind uint8; should be of kind float");
  says([&] { m.boolean("test.uint8"); }, "'test.uint8' is of kind uint8; should be of kind bool");
  says([&] { m.texts("test.text"); },
       "'test.text' is of kind string; should be of kind list of string");
  says([&] { m.texts("test.list.int8"); },
       "'test.list.int8' is of kind list of int8; should be of kind list of string");
  says([&] { m.integer("test.list.int8", 0, 1); },
       "'test.list.int8' is of kind list of int8; should be of kind integer");
  std::vector<float> two(2);
  says([&] { file.read(0, two); }, "tensor 'one' has 3 elements, not 2");
}

TEST_CASE("gguf: version 2 is read as version 3 is") {
  for (std::uint32_t const version : {2U, 3U}) {
    gguf_recipe recipe;
    recipe.version = version;
    auto const bytes = recipe.made().text;
    auto const file = read(bytes);
    CHECK(file.tensors().size() == 2);
    CHECK(file.metadata().integers("a.list") == std::vector<std::int64_t>{1, -1});
  }
}

TEST_CASE("gguf: tensors may lie in any order, with gaps and nothing behind the last") {
  gguf_recipe recipe;
  recipe.tensors = {{"last", {4}, 0, 320}, {"first", {4}, 0, 64}, {"number", {}, 0, 128}};
  recipe.data = 336;
  auto const bytes = recipe.made().text;
  auto const file = read(bytes);
  CHECK(file.find("number")->shape.empty());
  CHECK(file.find("number")->size() == 1);
}

TEST_CASE("gguf: what was returned stays where it is when a file moves") {
  auto first = lm::gguf_file(fixture("metadata.gguf"));
  auto const text = first.metadata().text("test.text");
  auto const second = std::move(first);
  CHECK(text.data() == second.metadata().text("test.text").data());
  CHECK(values_of(second, 0) == std::vector<float>{1, 2, 3});
}

// A reader that looks each word up in those before it would take minutes.
TEST_CASE("gguf: a large vocabulary and many thousands of tensors load at once") {
  constexpr std::uint64_t words = 200'000, tensors = 20'000;
  gguf_bytes file;
  file.text = "GGUF";
  file.number(3U).number(tensors).number(std::uint64_t{1});
  file.string("words", "").number(9U).number(8U).number(words);
  for (std::uint64_t i = 0; i < words; ++i) file.string(std::to_string(i), "");
  for (std::uint64_t i = 0; i < tensors; ++i)
    file.string("t" + std::to_string(i), "")
        .number(1U)
        .number(std::uint64_t{1})
        .number(0U)
        .number(i * 32);
  file.pad(32);
  file.text.resize(file.text.size() + tensors * 32);
  auto const start = std::chrono::steady_clock::now();
  auto const read_back = read(file.text);
  auto const list = read_back.metadata().texts("words");
  auto const time = std::chrono::steady_clock::now() - start;
  CHECK(list.back() == "199999");
  CHECK(read_back.tensors().size() == tensors);
  CHECK(time < std::chrono::seconds(10));  // 20 ms at -O1
}
