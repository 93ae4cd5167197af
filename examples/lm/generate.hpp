// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Continuing a text token by token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <strata/random.hpp>

#include "failure.hpp"
#include "progress.hpp"
#include "server.hpp"

namespace lm {

/// The next token. Temperature 0 takes the likeliest (the lowest of equals); above, token i is
/// drawn with a probability proportional to exp(logit_i / temperature), by the 64 random bits of
/// draw_words({seed, step}, whole_model, generation).
template <class T>
std::int32_t choose_token(std::span<T const> logits, double temperature, std::uint64_t seed,
                          std::uint64_t step) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[best]) best = i;
  if (temperature <= 0) return static_cast<std::int32_t>(best);
  auto const weight = [&](std::size_t i) {
    return std::exp((static_cast<double>(logits[i]) - static_cast<double>(logits[best])) /
                    temperature);
  };
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) total += weight(i);
  strata::draw_key key;
  key.seed = seed;
  key.step = step;
  auto const words = strata::draw_words(key, strata::whole_model, strata::draw_purpose::generation);
  auto const uniform = (words.word[0] + words.word[1] * 0x1p-32) * 0x1p-32;  // [0, 1)
  double left = uniform * total;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    left -= weight(i);
    if (left < 0) return static_cast<std::int32_t>(i);
  }
  return static_cast<std::int32_t>(best);  // rounding ate the last weight
}

struct generation {
  std::vector<std::int32_t> tokens;
  double ttft_ms = 0;
  double seconds = 0;  ///< of all tokens after the first
};

struct generation_options {
  std::int32_t max_tokens = 256;
  double temperature = 0;
  std::uint64_t seed = 0;
  std::vector<std::int32_t> ends = {};  ///< tokens after which nothing comes
};

/// Continues a prompt of at least one token by up to max_tokens, fewer if interrupted or ended, and
/// hands each to `take` at once. Opens a sequence and closes it. Throws what the server refuses.
template <class T, class Take>
generation continue_prompt(server<T>& serving, strata::route_plan const& plan,
                           std::span<std::int32_t const> prompt, generation_options const& options,
                           Take const& take) {
  auto const id = serving.open(plan);
  require(id.state(), "opening a sequence");
  generation out;
  stopwatch const clock;
  auto outcome = prefill(serving, *id, prompt, prefill_chunk);
  out.ttft_ms = clock.seconds() * 1e3;
  for (std::int32_t i = 0; outcome.ok() && i < options.max_tokens && !interrupted(); ++i) {
    auto const token = choose_token(serving.logits(), options.temperature, options.seed,
                                    static_cast<std::uint64_t>(i));
    if (std::ranges::count(options.ends, token) > 0) break;
    out.tokens.push_back(token);
    take(token);
    bool const last = i + 1 == options.max_tokens;
    if (!last) outcome = serving.run(feed{*id, std::span(&token, 1), strata::logits::last});
  }
  out.seconds = clock.seconds() - out.ttft_ms / 1e3;
  require(serving.close(*id), "closing a sequence");
  require(outcome, "generating");
  return out;
}

/// Turns bytes as they come into text that a terminal can show: whole UTF-8 characters as they are,
/// other bytes and control characters (but newline and tab) as \xNN.
class byte_printer {
 public:
  /// Text that is complete after one more byte; may be empty.
  std::string add(unsigned char byte) {
    std::string out;
    if (expected_ > 0 && (byte & 0xC0) != 0x80) out = flush();
    pending_ += static_cast<char>(byte);
    if (expected_ == 0) expected_ = length_of(byte);
    if (pending_.size() < expected_) return out;
    if (expected_ == 0 || !is_character()) return out + flush();
    out += pending_;
    pending_.clear();
    expected_ = 0;
    return out;
  }

  /// What is left over, as escapes.
  std::string flush() {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out;
    for (char const c : pending_) {
      auto const byte = static_cast<unsigned char>(c);
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
    pending_.clear();
    expected_ = 0;
    return out;
  }

  /// The same for a whole text.
  static std::string print(std::string_view bytes) {
    byte_printer printer;
    std::string out;
    for (char const c : bytes) out += printer.add(static_cast<unsigned char>(c));
    return out + printer.flush();
  }

 private:
  /// Bytes of the character that starts with this one; 0 where none does.
  static std::size_t length_of(unsigned char byte) {
    if (byte == '\n' || byte == '\t' || (byte >= 0x20 && byte < 0x7F)) return 1;
    if (byte >= 0xC2 && byte < 0xE0) return 2;
    if (byte >= 0xE0 && byte < 0xF0) return 3;
    if (byte >= 0xF0 && byte < 0xF5) return 4;
    return 0;
  }

  /// Refuses overlong forms, surrogates, what lies beyond U+10FFFF, and the controls U+0080-9F.
  bool is_character() const {
    auto const at = [this](std::size_t i) { return static_cast<unsigned char>(pending_[i]); };
    if (pending_.size() == 1) return true;
    switch (at(0)) {
      case 0xC2:
        return at(1) >= 0xA0;
      case 0xE0:
        return at(1) >= 0xA0;
      case 0xED:
        return at(1) < 0xA0;
      case 0xF0:
        return at(1) >= 0x90;
      case 0xF4:
        return at(1) < 0x90;
      default:
        return true;
    }
  }

  std::string pending_;
  std::size_t expected_ = 0;  // bytes of the character begun; 0: none is
};

}  // namespace lm
