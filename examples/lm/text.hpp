// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Text: bytes from files, split into what trains and what is held out, and windows drawn from the
// former.
#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/checksum.hpp>
#include <strata/random.hpp>

#include "failure.hpp"

namespace lm {

/// Bytes of which every Nth is held out.
inline constexpr std::int64_t hold_out_block = 16 * 1024;

namespace detail {

/// Everything that a stream gives.
inline std::vector<std::uint8_t> drain(std::FILE* stream, std::string const& name) {
  std::vector<std::uint8_t> bytes;
  std::size_t size = 0;
  do {
    bytes.resize(size + (1 << 16) + size / 2);
    size += std::fread(bytes.data() + size, 1, bytes.size() - size, stream);
  } while (size == bytes.size());
  if (std::ferror(stream) != 0) throw failure(name + ": " + std::strerror(errno));
  bytes.resize(size);
  return bytes;
}

}  // namespace detail

inline std::vector<std::uint8_t> read_file(std::string const& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> const file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (file == nullptr) throw failure(path + ": " + std::strerror(errno));
  return detail::drain(file.get(), path);
}

/// The King James Bible, 4 298 239 bytes, as Debian's program `bible` prints it.
inline std::vector<std::uint8_t> king_james_bible() {
  auto* const pipe = popen("COLUMNS=80 bible gen1:1-rev22:21 < /dev/null 2> /dev/null", "r");
  if (pipe == nullptr) throw failure(std::string("bible: ") + std::strerror(errno));
  auto bytes = detail::drain(pipe, "bible");
  auto const outcome = pclose(pipe);
  if (WIFEXITED(outcome) && WEXITSTATUS(outcome) == 127)
    throw failure(
        "the default text, the King James Bible, comes from the program `bible`, which "
        "is not installed (Debian, Ubuntu: apt install bible-kjv); or give --text FILE");
  if (outcome != 0 || bytes.empty())
    throw failure("`bible gen1:1-rev22:21` failed; give --text FILE instead");
  return bytes;
}

/// Texts of which every `hold_out`th block of 16 KiB is kept out of training: blocks N - 1, 2N - 1
/// and so on of each text, counted from its start. Spans stay valid while the corpus lives.
class corpus {
 public:
  using stretch = std::span<std::uint8_t const>;

  /// hold_out: 0 (nothing is held out) or from 2 on.
  corpus(std::vector<std::vector<std::uint8_t>> texts, std::int32_t hold_out)
      : texts_(std::move(texts)), hold_out_(hold_out) {
    if (hold_out < 0 || hold_out == 1)
      throw failure("--hold-out is " + std::to_string(hold_out) + "; it must be 0 or from 2 on",
                    exit_code::wrong_use);
    for (auto const& text : texts_) split(text);
  }
  corpus(corpus&&) = default;
  corpus& operator=(corpus&&) = default;

  /// Without a file: the King James Bible.
  static corpus read(std::vector<std::string> const& files, std::int32_t hold_out) {
    std::vector<std::vector<std::uint8_t>> texts;
    for (auto const& file : files) texts.push_back(read_file(file));
    if (files.empty()) texts.push_back(king_james_bible());
    return {std::move(texts), hold_out};
  }

  std::int32_t hold_out() const noexcept { return hold_out_; }
  /// Unbroken stretches of text that training may see, in order.
  std::vector<stretch> const& training() const noexcept { return training_; }
  /// What is to be scored: the blocks held out, or everything where none are.
  std::vector<stretch> const& scored() const noexcept {
    return hold_out_ == 0 ? training_ : held_out_;
  }
  std::int64_t bytes() const noexcept {
    std::int64_t sum = 0;
    for (auto const& text : texts_) sum += static_cast<std::int64_t>(text.size());
    return sum;
  }
  /// Tells one text from another.
  std::uint32_t checksum() const noexcept {
    std::uint32_t sum = 0;
    for (auto const& text : texts_) sum = strata::crc32c(std::as_bytes(std::span(text)), sum);
    return sum;
  }

 private:
  void split(std::vector<std::uint8_t> const& text) {
    stretch const all(text);
    auto const block = static_cast<std::size_t>(hold_out_block);
    auto const period =
        hold_out_ == 0 ? text.size() + 1 : block * static_cast<std::size_t>(hold_out_);
    for (std::size_t at = 0; at < text.size(); at += period) {
      auto const left = text.size() - at;
      auto const kept = hold_out_ == 0 ? left : std::min(left, period - block);
      training_.push_back(all.subspan(at, kept));
      if (kept < left) held_out_.push_back(all.subspan(at + kept, std::min(block, left - kept)));
    }
  }

  std::vector<std::vector<std::uint8_t>> texts_;
  std::int32_t hold_out_ = 0;
  std::vector<stretch> training_, held_out_;
};

/// Draws windows of a fixed length from stretches of text, as bytes or as tokens, each start equally
/// likely. No window straddles two stretches, which outlive it.
template <class Element>
class window_sampler {
 public:
  using stretch = std::span<Element const>;

  /// `parted`: by blocks that are held out, for the message of a text that is too small.
  window_sampler(std::vector<stretch> const& text, std::int64_t length, bool parted)
      : length_(length) {
    std::int64_t longest = 0;
    for (auto const& part : text) {
      auto const size = static_cast<std::int64_t>(part.size());
      longest = std::max(longest, size);
      if (size < length) continue;
      stretches_.push_back({part, starts_});
      starts_ += size - length + 1;
    }
    if (starts_ == 0)
      throw failure(
          "the text is too small: windows take --context + 1 = " + std::to_string(length) +
          (sizeof(Element) == 1 ? " bytes" : " tokens") + " in one piece, and the longest piece" +
          (parted ? " between held-out blocks" : "") + " has " + std::to_string(longest));
  }

  std::int64_t num_starts() const noexcept { return starts_; }

  /// The window of one sequence of one step: words 2 and 3 of the draw, as a 64-bit number modulo
  /// num_starts(). The key names the sequence within the whole step, so that it does not matter
  /// into how many micro-batches the step is split.
  stretch draw(strata::draw_key const& key) const noexcept {
    auto const words =
        strata::draw_words(key, strata::whole_model, strata::draw_purpose::data_order);
    auto const number = std::uint64_t{words.word[2]} << 32 | words.word[3];
    return at(static_cast<std::int64_t>(number % static_cast<std::uint64_t>(starts_)));
  }

  /// Window number `start`, below num_starts(), in the order of the text.
  stretch at(std::int64_t start) const noexcept {
    std::size_t low = 0, high = stretches_.size();
    while (high - low > 1) {
      auto const middle = (low + high) / 2;
      (stretches_[middle].first_start <= start ? low : high) = middle;
    }
    auto const& found = stretches_[low];
    return found.text.subspan(static_cast<std::size_t>(start - found.first_start),
                              static_cast<std::size_t>(length_));
  }

 private:
  struct numbered {
    stretch text;
    std::int64_t first_start = 0;  // number of the window at its beginning
  };
  std::int64_t length_;
  std::int64_t starts_ = 0;
  std::vector<numbered> stretches_;
};

}  // namespace lm
