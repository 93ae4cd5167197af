// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What products keep for the shapes that they are asked for: no more than so many.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <stdexcept>

#include "cuda/recent_map.hpp"

namespace {

/// Made, and cannot be copied, as a product's plan cannot.
using made = std::unique_ptr<int>;

}  // namespace

TEST_CASE("recent map: the key whose use is longest ago goes") {
  lm::cuda::recent_map<int, made> map(3);
  int makes = 0;
  auto const is_new = [&](int key) {
    auto const before = makes;
    auto const& value = map.find(key, [&] { return ++makes, std::make_unique<int>(10 * key); });
    CHECK(*value == 10 * key);
    CHECK(map.size() <= 3);
    return makes != before;
  };
  for (int const key : {5, 1, 9}) CHECK(is_new(key));
  for (int const key : {5, 9, 5}) CHECK_FALSE(is_new(key));
  CHECK(is_new(7));  // 1 goes, though 5 came before it
  CHECK_FALSE(is_new(5));
  CHECK_FALSE(is_new(9));
  CHECK(is_new(1));  // 7 goes
  CHECK(is_new(7));
  CHECK(map.size() == 3);
}

TEST_CASE("recent map: many keys, against a list of the last ones") {
  constexpr std::size_t most = 8;
  lm::cuda::recent_map<unsigned, made> map(most);
  std::deque<unsigned> last;  // the latest at the end
  unsigned state = 1;
  for (int i = 0; i < 5000; ++i) {
    state = state * 1664525u + 1013904223u;
    auto const key = state >> 24 & (i % 100 < 50 ? 7u : 15u);
    bool fresh = false;
    map.find(key, [&] { return fresh = true, std::make_unique<int>(0); });
    auto const at = std::find(last.begin(), last.end(), key);
    REQUIRE(fresh == (at == last.end()));
    if (!fresh) last.erase(at);
    last.push_back(key);
    if (last.size() > most) last.pop_front();
    REQUIRE(map.size() == last.size());
  }
}

TEST_CASE("recent map: what cannot be made drops none") {
  lm::cuda::recent_map<int, made> map(1);
  map.find(1, [] { return std::make_unique<int>(1); });
  CHECK_THROWS_AS(map.find(2, []() -> made { throw std::runtime_error("none"); }),
                  std::runtime_error);
  CHECK(*map.find(1, [] { return std::make_unique<int>(2); }) == 1);
}
