// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Unicode's composed normal form (NFC), which Qwen's tokenizers want of a text first. By utf8proc;
// without it (STRATA_LM_UTF8PROC is not defined) text passes that is certainly in that form.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#if defined(STRATA_LM_UTF8PROC)
#include <utf8proc.h>
#endif

#include "failure.hpp"

namespace lm {

/// Whether no character lies at U+0300 or above: those below compose and decompose with no other.
inline bool certainly_nfc(std::string_view utf8) noexcept {
  return std::ranges::none_of(utf8, [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

#if defined(STRATA_LM_UTF8PROC)

/// text: valid UTF-8, zero bytes included.
inline std::string to_nfc(std::string_view text) {
  if (certainly_nfc(text)) return std::string(text);
  if (text.size() > std::numeric_limits<std::int32_t>::max() / 4)
    throw failure("a text of " + std::to_string(text.size()) + " bytes is too long to normalise");
  utf8proc_uint8_t* made = nullptr;
  auto const size =
      utf8proc_map(reinterpret_cast<utf8proc_uint8_t const*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &made,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> const held(made, std::free);
  if (size < 0) throw failure(std::string("a text cannot be normalised: ") + utf8proc_errmsg(size));
  return {reinterpret_cast<char const*>(made), static_cast<std::size_t>(size)};
}

#else

inline std::string to_nfc(std::string_view text) {
  if (certainly_nfc(text)) return std::string(text);
  throw failure(
      "this tokenizer normalises text to NFC, for which this strata-lm was built without utf8proc "
      "(Debian, Ubuntu: apt install libutf8proc-dev, and configure again); without it, it takes "
      "text below U+0300 alone");
}

#endif

}  // namespace lm
