// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// GGUF files that lie: each is refused, and the sentence has the name, the value and its bound.
#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "formats/gguf.hpp"
#include "lm_formats/gguf_bytes.hpp"
#include "lm_formats/refusals.hpp"

using namespace formats;

namespace {

std::string gguf_refused(std::string const& bytes) {
  return refusal([&] { lm::gguf_file(as_bytes(bytes), "test.gguf"); });
}

std::string refused_recipe(gguf_recipe const& recipe) { return gguf_refused(recipe.made().text); }

/// A recipe with one tensor other than it should be.
std::string gguf_refused_with(gguf_entry const& tensor) {
  gguf_recipe recipe;
  recipe.tensors.front() = tensor;
  return refused_recipe(recipe);
}

/// A file of one key and its value.
gguf_bytes one_key(std::string const& key) {
  gguf_bytes out;
  out.text = "GGUF";
  out.number(3U).number(std::uint64_t{0}).number(std::uint64_t{1}).string(key, "");
  return out;
}

constexpr auto greatest_u64 = ~std::uint64_t{0};

}  // namespace

TEST_CASE("gguf: a file that ends early is refused, wherever it ends") {
  REQUIRE(refused_recipe({}) == "");
  auto const made = gguf_recipe().made().text;
  auto const written = contents(fixture("metadata.gguf"));
  for (std::size_t size = 0; size < made.size(); ++size) {
    CAPTURE(size);
    auto const why = gguf_refused(made.substr(0, size));
    CHECK(why.starts_with("test.gguf: "));
    CHECK((contains(why, "is truncated") || contains(why, "is no GGUF file") ||
           contains(why, "the file has") || contains(why, "hold at most")));
  }
  // Behind the last tensor, of 8 bytes, lie 56 that nobody needs.
  for (std::size_t size = 0; size < written.size() - 56; ++size) {
    CAPTURE(size);
    CHECK(gguf_refused(written.substr(0, size)) != "");
  }
}

TEST_CASE("gguf: no size that is too large gets through, whichever it is") {
  auto const made = gguf_recipe().made();
  REQUIRE(made.sizes.size() > 15);
  for (auto const& field : made.sizes)
    for (auto const value : {greatest_u64, greatest_u64 - 7, greatest_u64 >> 1,
                             std::uint64_t{1} << 63, std::uint64_t{1} << 62, std::uint64_t{1} << 61,
                             std::uint64_t{1} << 60, std::uint64_t{1} << 32, greatest_u64 >> 32,
                             std::uint64_t{1} << 31, std::uint64_t{1} << 20}) {
      CAPTURE(field.what);
      CAPTURE(value);
      auto const part = field.bytes == 8 ? value : value & 0xFFFFFFFF;
      auto bytes = made.text;
      std::memcpy(bytes.data() + field.at, &part, field.bytes);
      if (part != 0) CHECK(gguf_refused(bytes) != "");
    }
  // Those that are too small are read as what they then say.
  for (auto const& field : made.sizes)
    for (std::uint64_t const value : {0, 1, 2, 3, 5}) {
      auto bytes = made.text;
      std::memcpy(bytes.data() + field.at, &value, field.bytes);
      auto const why = gguf_refused(bytes);
      CHECK((why.empty() || why.starts_with("test.gguf: ")));
    }
}

TEST_CASE("gguf: headers that are not ours") {
  gguf_recipe recipe;
  auto const version = [&](std::uint32_t number) {
    recipe.version = number;
    return refused_recipe(recipe);
  };
  CHECK(version(1) == "test.gguf: has version 1 of GGUF; this program reads 2 and 3");
  CHECK(contains(version(4), "has version 4"));
  CHECK(contains(version(3U << 24), "is big endian"));
  CHECK(contains(gguf_refused("GGML and more"), "it does not begin with 'GGUF'"));
  CHECK(contains(gguf_refused(""), "is no GGUF file"));
}

TEST_CASE("gguf: alignments") {
  gguf_recipe recipe;
  auto const alignment = [&](std::uint32_t value) {
    recipe.alignment = value;
    return refused_recipe(recipe);
  };
  CHECK(alignment(8) == "");
  CHECK(contains(alignment(0), "'general.alignment' is 0; it must lie between 1 and 1048576"));
  CHECK(contains(alignment(3), "'general.alignment' is 3; it must be a power of two"));
  CHECK(contains(alignment(1U << 31), "'general.alignment' is 2147483648"));
  CHECK(
      contains(alignment(64), "tensor 'two' lies at offset 32 with 68 bytes; the alignment is 64"));
  CHECK(
      contains(alignment(1 << 20), "tensor 'one' lies at offset 0 with 16 bytes; the file has 0"));
  auto wide = one_key("general.alignment").number(10U).number(std::uint64_t{1} << 40);
  CHECK(contains(gguf_refused(wide.text), "'general.alignment' is 1099511627776"));
  auto word = one_key("general.alignment").number(8U).string("32", "");
  CHECK(contains(gguf_refused(word.text),
                 "'general.alignment' is of kind string; should be of kind integer"));
}

TEST_CASE("gguf: keys and values") {
  auto const value = [](auto const& add) {
    auto file = one_key("key");
    add(file);
    return gguf_refused(file.text);
  };
  CHECK(contains(value([](auto& f) { f.number(13U).number(0); }),
                 "'key' has kind 13; the kinds are 0 to 12"));
  CHECK(contains(value([](auto& f) { f.number(9U).number(9U).number(std::uint64_t{0}); }),
                 "'key' is a list of lists"));
  CHECK(contains(
      value([](auto& f) { f.number(9U).number(greatest_u64 >> 32).number(std::uint64_t{0}); }),
      "'key' has kind 4294967295"));
  CHECK(contains(value([](auto& f) { f.number(7U).number('\2'); }), "'key' is a bool of value 2"));
  CHECK(contains(value([](auto& f) {
                   f.number(9U).number(7U).number(std::uint64_t{2}).number('\1').number('\5');
                 }),
                 "'key' is a bool of value 5"));
  CHECK(contains(value([](auto& f) { f.number(8U).number(std::uint64_t{1} << 63); }),
                 "a string takes 9223372036854775808 bytes from byte 47 on; the file has 47"));
  CHECK(contains(value([](auto& f) { f.number(9U).number(12U).number(std::uint64_t{1} << 61); }),
                 "claims 2305843009213693952 elements of 'key'; the 0 bytes after byte 51 hold at "
                 "most 0"));
  gguf_bytes twice;
  twice.text = "GGUF";
  twice.number(3U).number(std::uint64_t{0}).number(std::uint64_t{2});
  for (int i = 0; i < 2; ++i) twice.string("key", "").number(0U).number('\1');
  CHECK(contains(gguf_refused(twice.text), "'key' is there more than once"));
  CHECK(contains(gguf_refused(one_key("").number(std::uint64_t{0}).text),
                 "a key before byte 32 has 0 bytes"));
  CHECK(contains(gguf_refused(one_key(std::string(65536, 'k')).text),
                 "a key before byte 32 has 65536 bytes; it must have 1 to 65535"));
}

TEST_CASE("gguf: tensors") {
  auto const name = std::string("one\x1B[2J");
  CHECK(contains(gguf_refused_with({name, {0}, 0, 0}),
                 "tensor 'one\\x1b[2J' has an extent of 0"));  // no terminal is cleared
  CHECK(contains(gguf_refused_with({"two", {4}, 0, 0}), "tensor 'two' is there more than once"));
  CHECK(contains(gguf_refused_with({std::string(65, 'n'), {4}, 0, 0}), "it must have 1 to 64"));
  CHECK(contains(gguf_refused_with({"one", {1, 1, 1, 1, 1}, 0, 0}),
                 "tensor 'one' has 5 dimensions; the most is 4"));
  CHECK(contains(gguf_refused_with({"one", {1ULL << 63}, 0, 0}),
                 "tensor 'one' has an extent of 9223372036854775808"));
  CHECK(contains(gguf_refused_with({"one", {1 << 20, 1 << 20, 1 << 20, 4}, 0, 0}),
                 "tensor 'one' has shape [4, 1048576, 1048576, 1048576], more than 2^61 elements"));
  CHECK(contains(gguf_refused_with({"one", {1ULL << 32, 1ULL << 32}, 0, 0}), "more than 2^61"));
  CHECK(contains(gguf_refused_with({"one", {1ULL << 60}, 0, 0}),
                 "tensor 'one' lies at offset 0 with 4611686018427387904 bytes; the file has 100 "
                 "behind byte 256"));
  CHECK(contains(gguf_refused_with({"one", {1ULL << 61}, 0, 0}), "more than 2^61"));
  CHECK(contains(gguf_refused_with({"one", {33}, 8, 0}),
                 "tensor 'one' has rows of 33 elements; blocks of Q8_0 have 32"));
  CHECK(contains(gguf_refused_with({"one", {128, 2}, 12, 0}), "blocks of Q4_K have 256"));
  CHECK(contains(gguf_refused_with({"one", {}, 2, 0}), "tensor 'one' has rows of 1 elements"));
  CHECK(contains(gguf_refused_with({"one", {256}, 10, 0}),
                 "tensor 'one' has type Q2_K (10); this program reads F32, F16, BF16, Q4_0"));
  CHECK(contains(gguf_refused_with({"one", {4}, 26, 0}), "has type I32 (26)"));
  CHECK(contains(gguf_refused_with({"one", {4}, 77, 0}), "has type 77; this program reads"));
}

TEST_CASE("gguf: places of tensors") {
  CHECK(contains(gguf_refused_with({"one", {4}, 0, 16}),
                 "tensor 'one' lies at offset 16 with 16 bytes; the alignment is 32"));
  CHECK(
      contains(gguf_refused_with({"one", {4}, 0, 128}),
               "tensor 'one' lies at offset 128 with 16 bytes; the file has 100 behind byte 256"));
  CHECK(contains(gguf_refused_with({"one", {4}, 0, greatest_u64 - 31}), "the file has 100"));
  CHECK(contains(gguf_refused_with({"one", {4}, 0, 64}),
                 "tensor 'one' lies at offset 64 with 16 bytes; the tensor before it ends at 100"));
  CHECK(contains(gguf_refused_with({"one", {9}, 0, 0}),
                 "tensor 'two' lies at offset 32 with 68 bytes; the tensor before it ends at 36"));
  CHECK(contains(gguf_refused_with({"one", {4}, 0, 32}), "the tensor before it ends at"));
}

TEST_CASE("gguf: files that cannot be read") {
  CHECK(refusal([] { lm::gguf_file("/nonexistent.gguf"); }) ==
        "/nonexistent.gguf: No such file or directory");
  CHECK(refusal([] { lm::gguf_file("/tmp"); }) == "/tmp: is no regular file");
  CHECK(contains(refusal([] { lm::gguf_file("/dev/null"); }), "is no regular file"));
}
