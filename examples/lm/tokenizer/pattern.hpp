// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Regular expressions of tokenizer.json are Oniguruma's; ours are PCRE2's. What both read alike
// passes, white space is spelled out, and everything else is refused: a pattern that means
// something else here would give other tokens, and nobody would see it.
#pragma once

#include <cctype>
#include <string>
#include <string_view>

#include "failure.hpp"
#include "tokenizer/utf8.hpp"

namespace lm {

namespace detail {

/// Unicode's White_Space, as a part of a character class.
inline constexpr std::string_view white_space_class =
    "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";

class pattern_translation {
 public:
  explicit pattern_translation(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    if (pattern_.size() > max_size)
      throw failure("the pattern has " + std::to_string(pattern_.size()) + " bytes; at most " +
                    std::to_string(max_size) + " are read");
    while (at_ < pattern_.size()) one();
    if (in_class_) refuse("a character class is not closed");
    return out_;
  }

 private:
  static constexpr std::size_t max_size = 1 << 16;

  [[noreturn]] void refuse(std::string const& what) const {
    throw failure("the pattern " + shown(pattern_, 200) + ", at its byte " + std::to_string(at_) +
                  ": " + what);
  }
  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  void copy(std::size_t bytes) {
    out_ += pattern_.substr(at_, bytes);
    at_ += bytes;
  }

  void one() {
    auto const c = pattern_[at_];
    if (c == '\\') return escape();
    if (in_class_) return inside_class(c);
    switch (c) {
      case '[':
        in_class_ = true;
        copy(next_is("[^") ? 2 : 1);
        if (next_is("]")) refuse("an empty character class");
        return;
      case '(':
        return group();
      case '{':
        return repeat();
      case '^':
      case '$':
        refuse(std::string(1, c) + " is at every line in Oniguruma; it is not supported");
      case '\0':
        refuse("a zero byte");
      default:
        copy(1);
    }
  }

  void inside_class(char c) {
    if (c == '[') refuse("a class within a class is not supported");
    if (next_is("&&")) refuse("&& in a class is not supported");
    if (c == '\0') refuse("a zero byte");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void group() {
    if (next_is("(*")) refuse("(* is not supported");
    if (next_is("(?")) {
      for (std::string_view const known : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"})
        if (next_is(known)) return copy(known.size());
      refuse("of groups that begin with (? there are (?: (?i: (?= (?! (?<= (?<! and (?>");
    }
    copy(1);
  }

  /// {n}, {n,} and {n,m}; what may follow differs between the two.
  void repeat() {
    auto end = at_ + 1;
    auto const digits = [&] {
      auto const begin = end;
      while (end < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[end])))
        ++end;
      return end > begin;
    };
    bool known = digits();
    if (known && end < pattern_.size() && pattern_[end] == ',') ++end, digits();
    known = known && end < pattern_.size() && pattern_[end] == '}';
    if (!known) refuse("{ begins {n}, {n,} or {n,m}");
    copy(end + 1 - at_);
    if (next_is("?") || next_is("+")) refuse("? and + behind } are not supported");
  }

  void escape() {
    if (at_ + 1 == pattern_.size()) refuse("\\ is the last character");
    auto const c = pattern_[at_ + 1];
    if (c == 'p' || c == 'P') return property();
    if (c == 's' || c == 'S') return white_space(c == 'S');
    bool const same =
        std::string_view("nrt!\"#$%&()*+,-./:;=?@[\\]^_{|}~'").find(c) != std::string_view::npos;
    if (!same) refuse(std::string("the escape \\") + c + " is not supported");
    copy(2);
  }

  void white_space(bool negative) {
    if (in_class_ && negative) refuse("\\S in a class is not supported");
    // Beside a dash the list would become the end of a range.
    auto const rest = pattern_.substr(at_ + 2);
    bool const dash_before = at_ > 1 && pattern_[at_ - 1] == '-' && pattern_[at_ - 2] != '\\';
    if (in_class_ && (dash_before || (rest.starts_with('-') && !rest.starts_with("-]"))))
      refuse("\\s beside - in a class is not supported");
    if (!in_class_) out_ += negative ? "[^" : "[";
    out_ += white_space_class;
    if (!in_class_) out_ += ']';
    at_ += 2;
  }

  /// General categories alone: of scripts, PCRE2 means the extended ones.
  void property() {
    auto const rest = pattern_.substr(at_ + 2);
    auto const end = rest.find('}');
    bool known = rest.starts_with('{') && (end == 2 || end == 3);
    if (known) {
      constexpr std::string_view categories =
          " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp ";
      auto const name = " " + std::string(rest.substr(1, end - 1)) + " ";
      known = categories.find(name) != categories.npos;
    }
    if (!known) refuse("of properties there are general categories, such as \\p{L} and \\p{Lu}");
    copy(end + 3);
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace detail

/// PCRE2's spelling of an expression. Throws, with the place, where it is none that both know.
inline std::string translate_pattern(std::string_view oniguruma) {
  return detail::pattern_translation(oniguruma).run();
}

}  // namespace lm
