// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The list of codec pairs: each is found by its names and by no others.
#include <doctest/doctest.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/cache/codec_pairs.hpp>

namespace {

using strata::codec_pair;
using pair_names = std::pair<std::string, std::string>;

constexpr strata::named_codec_pairs named_pairs;

std::vector<pair_names> all_names() {
  std::vector<pair_names> list;
  strata::for_each_codec_pair(named_pairs, [&]<class K, class V>(codec_pair<K, V>) {
    list.emplace_back(K::name, V::name);
  });
  return list;
}

}  // namespace

TEST_CASE("codec pairs: the list") {
  CHECK(all_names() == std::vector<pair_names>{{"f32", "f32"},
                                               {"f16", "f16"},
                                               {"bf16", "bf16"},
                                               {"int8", "int8"},
                                               {"q8_0", "q8_0"},
                                               {"fp8_e4m3", "fp8_e4m3"},
                                               {"fp8_e4m3", "bf16"},
                                               {"int8", "int4"},
                                               {"rot_int4", "int4"}});
}

TEST_CASE("codec pairs: by their names") {
  for (auto const& wanted : all_names()) {
    CAPTURE(wanted.first);
    CAPTURE(wanted.second);
    std::vector<pair_names> found;
    CHECK(strata::with_codec_pair(
        named_pairs, wanted.first, wanted.second, [&]<class K, class V>(codec_pair<K, V> pair) {
          static_assert(std::is_same_v<typename decltype(pair)::view, strata::kv_view<K, V>>);
          found.emplace_back(K::name, V::name);
        }));
    CHECK(found == std::vector<pair_names>{wanted});
  }
}

TEST_CASE("codec pairs: what is not in the list") {
  for (auto const& wanted :
       std::vector<pair_names>{{"int4", "int8"}, {"int4", "rot_int4"}, {"", ""}, {"int8", "int"}}) {
    CAPTURE(wanted.first);
    bool called = false;
    CHECK_FALSE(strata::with_codec_pair(named_pairs, wanted.first, wanted.second,
                                        [&](auto) { called = true; }));
    CHECK_FALSE(called);
  }
}

TEST_CASE("codec pairs: a list of one's own") {
  constexpr strata::codec_pairs<codec_pair<strata::f32_codec, strata::f16_codec>> own;
  std::string v;
  CHECK(strata::with_codec_pair(own, "f32", "f16",
                                [&](auto pair) { v = decltype(pair)::v_codec::name; }));
  CHECK(v == "f16");
  CHECK_FALSE(strata::with_codec_pair(own, "f32", "f32", [](auto) {}));
}
