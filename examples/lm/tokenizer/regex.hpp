// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Regular expressions over UTF-8, by PCRE2, compiled for this processor where PCRE2 can. Without
// the library (STRATA_LM_PCRE2 is not defined) everything compiles and nothing can be searched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#if defined(STRATA_LM_PCRE2)
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

#include "failure.hpp"
#include "tokenizer/utf8.hpp"

namespace lm {

/// Where an expression matched: [begin, end) of the text; begin == end: nowhere.
struct text_range {
  std::size_t begin = 0, end = 0;
};

#if defined(STRATA_LM_PCRE2)

namespace detail {

/// What one match may take before it is given up: PCRE2's count of internal matches, KiB of heap
/// and of the compiled code's stack. Patterns of tokenizers go over white space before a character
/// once, and once more, so that texts of 10 MB of spaces still come through.
inline constexpr std::uint32_t match_limit = 50'000'000, heap_limit_kib = 64 * 1024;
inline constexpr std::size_t jit_stack_bytes = 4 << 20;

template <auto Free>
struct pcre2_free {
  template <class T>
  void operator()(T* held) const noexcept {
    Free(held);
  }
};

inline std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<char const*>(text);
}

template <class T>
T* require_memory(T* made) {
  if (made == nullptr) throw std::bad_alloc();
  return made;
}

}  // namespace detail

/// An expression in PCRE2's syntax. Threads: const calls at the same time.
class regex {
 public:
  /// Throws where it is none, or could match nothing.
  explicit regex(std::string pattern) : pattern_(std::move(pattern)) {
    int error = 0;
    std::size_t at = 0;
    code_.reset(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern_.data()), pattern_.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY,
                      &error, &at, nullptr));
    if (code_ == nullptr)
      throw failure("the pattern " + shown(pattern_, 200) + ", at its byte " + std::to_string(at) +
                    ": " + detail::pcre2_message(error));
    std::uint32_t may_be_empty = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_MATCHEMPTY, &may_be_empty);
    if (may_be_empty != 0)
      throw failure("the pattern " + shown(pattern_, 200) + " matches nothing at all");
    // Where it fails, for want of memory that may be executed, the interpreter does the work.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

 private:
  friend class regex_search;
  std::string pattern_;
  std::unique_ptr<pcre2_code, detail::pcre2_free<pcre2_code_free>> code_;
};

/// The memory of one thread's searches, of any expressions.
class regex_search {
 public:
  regex_search()
      : context_(detail::require_memory(pcre2_match_context_create(nullptr))),
        data_(detail::require_memory(pcre2_match_data_create(1, nullptr))) {
    pcre2_set_match_limit(context_.get(), detail::match_limit);
    pcre2_set_heap_limit(context_.get(), detail::heap_limit_kib);
    jit_stack_.reset(pcre2_jit_stack_create(32 << 10, detail::jit_stack_bytes, nullptr));
    if (jit_stack_ != nullptr) pcre2_jit_stack_assign(context_.get(), nullptr, jit_stack_.get());
  }

  /// The first match from a place on; text is valid UTF-8 and the place one between code points.
  /// Throws where a limit is reached.
  text_range find(regex const& expression, std::string_view text, std::size_t from) {
    auto const count =
        pcre2_match(expression.code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    from, PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
    if (count == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
    if (count < 0)
      throw failure("the pattern " + shown(expression.pattern_, 200) + " fails on a text of " +
                    std::to_string(text.size()) + " bytes, from its byte " + std::to_string(from) +
                    " on: " + detail::pcre2_message(count));
    auto const* const ends = pcre2_get_ovector_pointer(data_.get());
    return {ends[0], ends[1]};
  }

 private:
  std::unique_ptr<pcre2_match_context, detail::pcre2_free<pcre2_match_context_free>> context_;
  std::unique_ptr<pcre2_match_data, detail::pcre2_free<pcre2_match_data_free>> data_;
  std::unique_ptr<pcre2_jit_stack, detail::pcre2_free<pcre2_jit_stack_free>> jit_stack_;
};

#else

class regex {
 public:
  explicit regex(std::string const&) {
    throw failure(
        "this strata-lm was built without PCRE2, which its tokenizers need (Debian, Ubuntu: apt "
        "install libpcre2-dev, and configure again)");
  }
};

class regex_search {
 public:
  text_range find(regex const&, std::string_view text, std::size_t) {
    return {text.size(), text.size()};
  }
};

#endif

}  // namespace lm
