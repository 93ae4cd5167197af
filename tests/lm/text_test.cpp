// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What trains and what is held out, and the windows in between.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "support/statistics.hpp"
#include "text.hpp"
#include "tiny_files.hpp"

namespace {

constexpr std::size_t block = 16 * 1024;

std::vector<std::uint8_t> filled(std::size_t size, std::uint8_t first = 0) {
  std::vector<std::uint8_t> text(size);
  for (std::size_t i = 0; i < size; ++i)
    text[i] = static_cast<std::uint8_t>(first + i * 7 + i / 251);
  return text;
}

/// Every byte's address, sorted, to see which are where.
std::vector<std::uint8_t const*> addresses(std::vector<lm::corpus::stretch> const& parts) {
  std::vector<std::uint8_t const*> all;
  for (auto const& part : parts)
    for (auto const& byte : part) all.push_back(&byte);
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
  return all;
}

}  // namespace

TEST_CASE("every Nth block is held out, and no byte is on both sides or on none") {
  for (std::int32_t n : {2, 3, 20})
    for (std::size_t size : {std::size_t{1}, block - 1, block, block + 1, 2 * block, 3 * block - 5,
                             4 * block + 17, 41 * block + 3}) {
      CAPTURE(n);
      CAPTURE(size);
      lm::corpus const text({filled(size), filled(2 * block + 9, 100)}, n);
      auto const trained = addresses(text.training()), scored = addresses(text.scored());
      CHECK(trained.size() + scored.size() == size + 2 * block + 9);
      std::vector<std::uint8_t const*> both;
      std::set_intersection(trained.begin(), trained.end(), scored.begin(), scored.end(),
                            std::back_inserter(both));
      CHECK(both.empty());
      std::size_t expected = 0;
      for (auto const bytes : {size, 2 * block + 9})
        for (std::size_t at = 0; at < bytes; ++at)
          expected += at / block % static_cast<std::size_t>(n) == static_cast<std::size_t>(n) - 1;
      CHECK(scored.size() == expected);
      for (auto const& part : text.scored()) CHECK(part.size() <= block);
    }
}

TEST_CASE("with nothing held out everything trains, and everything is scored") {
  lm::corpus const text({filled(block * 3), filled(10)}, 0);
  CHECK(text.training().size() == 2);
  CHECK(addresses(text.training()).size() == block * 3 + 10);
  CHECK(addresses(text.scored()) == addresses(text.training()));
}

TEST_CASE("windows come from every start that training may see, equally often, and no other") {
  lm::corpus const text({filled(block * 2 + 40), filled(25, 50), filled(9)}, 2);
  lm::window_sampler<std::uint8_t> const windows(text.training(), 10, text.hold_out() != 0);
  // Blocks of the first text: kept, held out, and 40 bytes kept. Texts of 25 and 9 bytes.
  CHECK(windows.num_starts() == static_cast<std::int64_t>(block - 9 + 40 - 9 + 25 - 9));
  auto const allowed = addresses(text.training());
  std::set<std::uint8_t const*> starts;
  std::int64_t strays = 0;
  for (std::int64_t i = 0; i < windows.num_starts(); ++i) {
    auto const window = windows.at(i);
    for (auto const& byte : window)
      strays += !std::binary_search(allowed.begin(), allowed.end(), &byte);
    strays += window.size() != 10;
    starts.insert(window.data());
  }
  CHECK(strays == 0);
  CHECK(static_cast<std::int64_t>(starts.size()) == windows.num_starts());
}

TEST_CASE("the draw of windows is uniform, and depends on step and sequence alone") {
  lm::corpus const text({filled(29), filled(13)}, 0);
  lm::window_sampler<std::uint8_t> const windows(text.training(), 10,
                                                 text.hold_out() != 0);  // 20 + 4 starts
  REQUIRE(windows.num_starts() == 24);
  std::vector<std::int64_t> counts(24);
  std::vector<std::uint8_t const*> starts;
  for (std::int64_t i = 0; i < 24; ++i) starts.push_back(windows.at(i).data());
  for (std::uint32_t i = 0; i < 24000; ++i) {
    auto const* const at = windows.draw({5, i / 8, 0, i % 8}).data();
    for (std::size_t k = 0; k < starts.size(); ++k) counts[k] += starts[k] == at;
  }
  std::vector<double> const equal(24, 1.0 / 24);
  CHECK(support::fits(counts, equal));
  CHECK(windows.draw({5, 3, 0, 2}).data() == windows.draw({5, 3, 0, 2}).data());
}

TEST_CASE("too little text is refused with what it takes") {
  lm::corpus const tiny_text({filled(100)}, 0);
  CHECK_NOTHROW(lm::window_sampler<std::uint8_t>(tiny_text.training(), 100, false));
  CHECK_THROWS_WITH_AS(
      lm::window_sampler<std::uint8_t>(tiny_text.training(), 101, false),
      "the text is too small: windows take --context + 1 = 101 bytes in one piece, "
      "and the longest piece has 100",
      lm::failure);
  lm::corpus const blocks({filled(10 * block)}, 3);
  CHECK_NOTHROW(lm::window_sampler<std::uint8_t>(blocks.training(), 2 * block, true));
  CHECK_THROWS_WITH_AS(lm::window_sampler<std::uint8_t>(blocks.training(), 2 * block + 1, true),
                       doctest::Contains("between held-out blocks has 32768"), lm::failure);
  CHECK_THROWS_AS(lm::window_sampler<std::uint8_t>({}, 1, false), lm::failure);
  CHECK_THROWS_WITH_AS(lm::corpus({filled(3)}, 1), doctest::Contains("--hold-out is 1"),
                       lm::failure);
}

TEST_CASE("files are read as they are, and a missing one is named") {
  tiny::scratch_file const file("text");
  auto const text = filled(200001);
  std::FILE* const out = std::fopen(file.path().c_str(), "wb");
  REQUIRE(out != nullptr);
  CHECK(std::fwrite(text.data(), 1, text.size(), out) == text.size());
  std::fclose(out);
  CHECK(lm::read_file(file.path()) == text);
  lm::corpus const twice = lm::corpus::read({file.path(), file.path()}, 0);
  CHECK(twice.bytes() == 400002);
  CHECK(twice.checksum() != lm::corpus({text}, 0).checksum());
  CHECK_THROWS_WITH_AS(lm::read_file("/nonexistent.txt"),
                       "/nonexistent.txt: No such file or directory", lm::failure);
}

TEST_CASE("without the program `bible` the default text says what to install") {
  std::string const path = std::getenv("PATH") == nullptr ? "" : std::getenv("PATH");
  setenv("PATH", "/nonexistent", 1);
  CHECK_THROWS_WITH_AS(lm::king_james_bible(), doctest::Contains("apt install bible-kjv"),
                       lm::failure);
  setenv("PATH", path.c_str(), 1);
}
