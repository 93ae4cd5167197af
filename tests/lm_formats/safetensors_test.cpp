// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// safetensors files: read as others wrote them, written as the format's page has it, and refused
// where they lie.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "formats/safetensors.hpp"
#include "formats/safetensors_writer.hpp"
#include "lm/tiny_files.hpp"
#include "lm_formats/hand_safetensors.hpp"
#include "lm_formats/refusals.hpp"

using namespace formats;

namespace {

std::string safetensors_refused(std::string const& bytes) {
  return refusal([&] { lm::safetensors_file(as_bytes(bytes), "test.st"); });
}
std::string safetensors_refused_with(std::string const& dtype, std::string const& shape,
                                     std::string const& offsets, std::size_t data = 16) {
  return safetensors_refused(hand_safetensors(one_tensor(dtype, shape, offsets), data));
}

}  // namespace

TEST_CASE("safetensors: three types, shapes of all sizes, places in any order") {
  auto file = hand_safetensors(R"({"f16":{"data_offsets":[12,18],"shape":[3],"dtype":"F16"},)"
                               R"("__metadata__":{"format":"pt","empty":""},)"
                               R"("f32":{"dtype":"F32","shape":[1,1,3],"data_offsets":[0,12]},)"
                               R"("bf16":{"dtype":"BF16","shape":[],"data_offsets":[18,20]},)"
                               R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[12,12]}})"
                               "   ");
  float const f32[] = {1.5F, -0.0F, 1e-40F};
  std::uint16_t const halves[] = {0x3C00, 0xFC00, 0x0001, 0x4049};
  file.append(reinterpret_cast<char const*>(f32), sizeof(f32));
  file.append(reinterpret_cast<char const*>(halves), sizeof(halves));
  lm::safetensors_file const read(as_bytes(file), "test.st");
  REQUIRE(read.tensors().size() == 4);
  CHECK(read.tensors()[0].name == "f32");
  CHECK(read.tensors()[1].name == "none");
  CHECK(read.tensors()[2].type == "F16");
  CHECK(values_of(read, 0) == std::vector<float>{1.5F, -0.0F, 1e-40F});
  CHECK(std::signbit(values_of(read, 0)[1]));
  CHECK(values_of(read, 1).empty());
  CHECK(values_of(read, 2) ==
        std::vector<float>{1, -std::numeric_limits<float>::infinity(), 0x1p-24F});
  CHECK(values_of(read, 3) == std::vector<float>{3.140625F});
  CHECK(read.metadata().at("format") == "pt");
  CHECK(lm::safetensors_file::recognises(as_bytes(file)));
  std::vector<float> two(2);
  CHECK(refusal([&] { read.read(0, two); }) == "test.st: tensor 'f32' has 3 elements, not 2");
}

TEST_CASE("safetensors: what is written is the format's, to the byte") {
  tiny::scratch_folder const folder("safetensors");
  auto const path = folder.path() + "/model.safetensors";
  std::vector<float> const a = {1, 2, 3, -4, 5, 6}, b = {1.00390625F, 1.01171875F};
  std::vector<lm::tensor_to_write> const tensors = {{"a", {2, 3}, a}, {"b", {2}, b}};
  lm::write_safetensors(path, tensors, lm::weight_type::bf16, {{"k", "v"}});
  std::string const header =
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]}})";
  std::uint64_t length = 0;
  auto const bytes = contents(path);
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length == (header.size() + 7) / 8 * 8);
  CHECK(bytes.substr(8, header.size()) == header);
  CHECK(bytes.substr(8 + header.size(), length - header.size()) ==
        std::string(length - header.size(), ' '));
  // Ties go to even: 1 + 1/256 down, 1 + 3/256 up.
  std::uint16_t const expected[] = {0x3F80, 0x4000, 0x4040, 0xC080, 0x40A0, 0x40C0, 0x3F80, 0x3F82};
  CHECK(bytes.substr(8 + length) ==
        std::string(reinterpret_cast<char const*>(expected), sizeof(expected)));
  lm::write_safetensors(path, tensors, lm::weight_type::f32, {});
  lm::safetensors_file const read(path);
  CHECK(values_of(read, 0) == a);
  CHECK(values_of(read, 1) == b);
  CHECK(read.metadata().empty());
  CHECK(folder.entries() == std::vector<std::string>{"model.safetensors"});
}

TEST_CASE("safetensors: a file that ends early, or late, is refused") {
  auto const whole = contents(fixture("llama/model.safetensors"));
  REQUIRE(safetensors_refused(whole) == "");
  auto const data = whole.rfind('}') + 1;
  REQUIRE(data < whole.size());
  for (std::size_t size = 0; size < whole.size(); size += size < data ? 1 : 61) {
    CAPTURE(size);
    CHECK(safetensors_refused(whole.substr(0, size)).starts_with("test.st: "));
  }
  CHECK(contains(safetensors_refused(whole + "x"), "bytes behind its header; its tensors end at"));
  CHECK(!lm::safetensors_file::recognises(as_bytes("GGUF")));
}

TEST_CASE("safetensors: lengths of the header") {
  CHECK(contains(safetensors_refused(hand_safetensors("{}", 0, (1ULL << 63) - 2)),
                 "claims 9223372036854775808 bytes; the most is 100000000"));
  CHECK(contains(safetensors_refused(hand_safetensors("{}", 0, 100'000'000)),
                 "claims 100000002 bytes"));
  CHECK(contains(safetensors_refused(hand_safetensors("{}", 0, 1)),
                 "is truncated: it has 10 bytes, its header ends at 11"));
  CHECK(contains(safetensors_refused("1234567"), "is truncated: it has 7 bytes"));
  CHECK(contains(safetensors_refused(hand_safetensors("")), "does not begin with '{'"));
  CHECK(safetensors_refused(hand_safetensors("{}")) == "");
}

TEST_CASE("safetensors: headers that are no JSON of the right kind") {
  auto const header = [](std::string const& text) {
    return safetensors_refused(hand_safetensors(text));
  };
  CHECK(contains(header(" {}"), "does not begin with '{'"));
  CHECK(contains(header("{} x"), "is no JSON"));
  CHECK(contains(header("{\"a\":1,}"), "is no JSON"));
  CHECK(contains(header("{/**/}"), "is no JSON"));
  CHECK(contains(header("{\"\xFF\":1}"), "is no JSON"));
  CHECK(contains(header(std::string("{}\0x", 4)), "it has a byte 0"));
  std::string deep(100'000, '[');
  CHECK(contains(header("{\"a\":" + deep), "its header is nested more than 32 deep"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  CHECK(contains(header(objects), "nested more than 32 deep"));
  CHECK(contains(header(R"({"a":1,"b":2,"a":1})"), "has 'a' more than once"));
  CHECK(contains(header(R"({"a":{"dtype":"F32","dtype":"F16"}})"), "has 'dtype' more than once"));
  CHECK(contains(header(R"({"__metadata__":[]})"), "its __metadata__ is no object"));
  CHECK(contains(header(R"({"__metadata__":{"k":1}})"), "has 'k' of 1; all must be strings"));
  CHECK(contains(header(R"({"a":[]})"), "tensor 'a' has other members than dtype"));
  CHECK(contains(header(R"({"a":{"dtype":"F32","shape":[],"offsets":[0,4]}})"), "other members"));
}

TEST_CASE("safetensors: tensors") {
  CHECK(safetensors_refused_with("F32", "[2,2]", "[0,16]") == "");
  CHECK(contains(safetensors_refused_with("F64", "[2]", "[0,16]"),
                 "tensor 'a' has dtype 'F64', which would be rounded; this program reads F32"));
  CHECK(contains(safetensors_refused_with("I64", "[2]", "[0,16]"),
                 "'I64', which is no type of weights"));
  CHECK(contains(safetensors_refused_with("BOOL", "[16]", "[0,16]"),
                 "'BOOL', which is no type of weights"));
  CHECK(contains(safetensors_refused_with("F8_E4M3", "[16]", "[0,16]"), "which is not known"));
  for (auto const* const shape :
       {"[-4]", "[4.0]", "[\"4\"]", "4", "[[4]]", "[18446744073709551615]", "[9223372036854775808]",
        "[1e1]", "[2305843009213693952]", "[4294967296,4294967296]", "[4611686018427387904,4,0]",
        "null"}) {
    CAPTURE(shape);
    auto const why = safetensors_refused_with("F32", shape, "[0,16]");
    CHECK(contains(why, "tensor 'a' has shape " +
                            std::string(shape == std::string("[1e1]") ? "[10.0]" : shape)));
    CHECK(contains(why, "at most 2^61 elements"));
  }
  // 2^60 elements can be counted, and take 2^62 bytes.
  CHECK(contains(safetensors_refused_with("F32", "[1152921504606846976]", "[0,16]"),
                 "has 16 bytes; F32 of shape [1152921504606846976] takes 4611686018427387904"));
  CHECK(
      contains(safetensors_refused_with("F32", "[1152921504606846976]", "[0,4611686018427387904]"),
               "tensor 'a' ends at 4611686018427387904; the file has 16 bytes"));
  CHECK(contains(safetensors_refused_with("BF16", "[2,2]", "[0,16]"),
                 "has 16 bytes; BF16 of shape [2, 2] takes 8"));
}

TEST_CASE("safetensors: places") {
  for (auto const* const offsets : {"[0]", "[0,16,32]", "[16,0]", "[-16,0]", "[0,16.0]",
                                    "[0,18446744073709551615]", "{}", "\"0,16\""}) {
    CAPTURE(offsets);
    CHECK(
        contains(safetensors_refused_with("F32", "[4]", offsets), "tensor 'a' has data_offsets "));
  }
  CHECK(contains(safetensors_refused_with("F32", "[2]", "[8,16]"),
                 "tensor 'a' begins at 8; what lies before it ends at 0"));
  CHECK(contains(safetensors_refused_with("F32", "[2]", "[0,8]"),
                 "has 16 bytes behind its header; its tensors end at 8"));
  CHECK(contains(safetensors_refused_with("F32", "[8]", "[0,32]"),
                 "tensor 'a' ends at 32; the file has 16"));
  auto const two = [](std::string const& a, std::string const& b) {
    return safetensors_refused(
        hand_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + a +
                             R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + b + "}}",
                         16));
  };
  CHECK(two("[8,16]", "[0,8]") == "");
  CHECK(contains(two("[0,8]", "[4,12]"), "tensor 'b' begins at 4; what lies before it ends at 8"));
  CHECK(contains(two("[0,8]", "[0,8]"), "tensor 'b' begins at 0; what lies before it ends at 8"));
  CHECK(
      contains(two("[0,8]", "[12,20]"), "tensor 'b' begins at 12; what lies before it ends at 8"));
}

TEST_CASE("safetensors: parts and their index must agree") {
  tiny::scratch_folder const folder("parts");
  auto const refused_index = [&](std::string const& index) {
    put(folder.path() + "/model.safetensors.index.json", index);
    return refusal([&] { lm::open_safetensors_folder(folder.path()); });
  };
  auto const has_neither = refusal([&] { lm::open_safetensors_folder(folder.path()); });
  CHECK(contains(has_neither, "has neither model.safetensors nor model.safetensors.index.json"));
  put(folder.path() + "/x.safetensors", hand_safetensors(one_tensor("F32", "[4]", "[0,16]"), 16));
  CHECK(refused_index(R"({"weight_map":{"a":"x.safetensors"}})") == "");
  CHECK(contains(refused_index(R"({"weight_map":{"b":"x.safetensors"}})"),
                 "tensor 'a' is in this part; "));
  CHECK(contains(refused_index(R"({"weight_map":{"a":"x.safetensors","b":"x.safetensors"}})"),
                 "/x.safetensors: lacks tensor 'b', which"));
  CHECK(contains(refused_index(R"({"weight_map":{"a":"y.safetensors"}})"),
                 "y.safetensors: No such file"));
  for (auto const* const part :
       {R"("../x.safetensors")", R"("/etc/passwd")", R"("x")", "7", R"("a\\b.safetensors")"}) {
    CAPTURE(part);
    CHECK(contains(refused_index(R"({"weight_map":{"a":)" + std::string(part) + "}}"),
                   "names no safetensors file of the folder"));
  }
  CHECK(contains(refused_index("{}"), "has no weight_map"));
  CHECK(contains(refused_index("[]"), "has no weight_map"));
  CHECK(contains(refused_index("{"), "is no JSON"));
}
