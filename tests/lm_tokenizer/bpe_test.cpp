// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Merging against the definition, written as it is read: look for the best pair, replace it, look
// again.
#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/sanitized.hpp"
#include "tokenizer/bpe.hpp"

namespace {

using tokens = std::vector<std::int32_t>;

struct vocabulary {
  std::array<std::int32_t, 256> bytes;
  std::vector<lm::merge_rule> merges;
};

/// Tokens 0 to 3 are the letters; each merge is of two tokens before it, now and then of a pair
/// whose text another token has already.
vocabulary random_vocabulary(std::mt19937& random, int merges) {
  vocabulary made;
  made.bytes.fill(-1);
  std::vector<std::string> texts;
  for (char const c : {'a', 'b', 'c', 'd'}) {
    made.bytes[static_cast<unsigned char>(c)] = static_cast<std::int32_t>(texts.size());
    texts.emplace_back(1, c);
  }
  while (static_cast<int>(made.merges.size()) < merges) {
    auto const left = random() % texts.size(), right = random() % texts.size();
    auto const known = std::ranges::any_of(made.merges, [&](auto const& m) {
      return m.left == static_cast<std::int32_t>(left) &&
             m.right == static_cast<std::int32_t>(right);
    });
    if (known) continue;
    auto const text = texts[left] + texts[right];
    auto const place = std::ranges::find(texts, text) - texts.begin();
    if (place == static_cast<std::ptrdiff_t>(texts.size())) texts.push_back(text);
    made.merges.push_back({static_cast<std::int32_t>(left), static_cast<std::int32_t>(right),
                           static_cast<std::int32_t>(place)});
  }
  std::ranges::shuffle(made.merges, random);
  return made;
}

tokens by_definition(vocabulary const& v, std::string const& piece) {
  tokens now;
  for (auto const c : piece)
    if (auto const token = v.bytes[static_cast<unsigned char>(c)]; token >= 0) now.push_back(token);
  for (std::size_t rank = 0; rank < v.merges.size();) {
    auto const& m = v.merges[rank];
    auto const at = std::adjacent_find(now.begin(), now.end(), [&](auto left, auto right) {
      return left == m.left && right == m.right;
    });
    if (at == now.end()) {
      ++rank;
      continue;
    }
    *at = m.result;
    now.erase(at + 1);
    rank = 0;
  }
  return now;
}

}  // namespace

TEST_CASE("bpe: merges as the definition says, whatever the vocabulary") {
  std::mt19937 random(1);
  lm::bpe_room room;
  for (int round = 0; round < 60; ++round) {
    auto const v = random_vocabulary(random, 1 + static_cast<int>(random() % 40));
    lm::bpe const made(v.bytes, v.merges);
    for (int i = 0; i < 30; ++i) {
      std::string piece;
      auto const letters = 1 + random() % 5;  // few letters: long tokens; e has no token
      for (auto left = random() % 60; left > 0; --left)
        piece += static_cast<char>('a' + random() % letters);
      tokens found;
      made.append(piece, room, found);
      CAPTURE(piece);
      CHECK(found == by_definition(v, piece));
    }
  }
}

TEST_CASE("bpe: a million times one letter is no more work per letter") {
  vocabulary v;
  v.bytes.fill(-1);
  v.bytes['a'] = 0;
  for (std::int32_t power = 0; power < 12; ++power) v.merges.push_back({power, power, power + 1});
  lm::bpe const made(v.bytes, v.merges);
  lm::bpe_room room;
  tokens found;
  auto const longest = (1 << 8) / support::case_step();  // tokens of 4096 letters
  made.append(std::string(static_cast<std::size_t>(longest * 4096 + 5), 'a'), room, found);
  REQUIRE(found.size() == static_cast<std::size_t>(longest + 2));
  CHECK(std::count(found.begin(), found.end(), 12) == longest);
  CHECK(found.back() == 0);
  found.clear();
  made.append("", room, found);
  CHECK(found.empty());
}
