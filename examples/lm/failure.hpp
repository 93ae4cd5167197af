// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How a command of strata-lm ends when it cannot do what it was asked.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include <strata/map/strategy.hpp>
#include <strata/status.hpp>

namespace lm {

/// Exit codes of the program.
enum class exit_code : int {
  done = 0,
  failed = 1,        ///< a file, a library call
  wrong_use = 2,     ///< an argument that means nothing
  does_not_fit = 3,  ///< memory or a budget is too small
  interrupted = 130  ///< stopped by the user, after what it had was written
};

/// Ends a command: the sentence goes to stderr.
class failure : public std::runtime_error {
 public:
  explicit failure(std::string const& sentence, exit_code code = exit_code::failed)
      : std::runtime_error(sentence), code_(code) {}
  exit_code code() const noexcept { return code_; }

 private:
  exit_code code_;
};

/// Throws unless s is ok. `doing` opens the sentence.
inline void require(strata::status const& s, std::string_view doing) {
  if (!s.ok()) throw failure(std::string(doing) + ": " + strata::describe(s).c_str());
}

/// Throws unless s is ok, with the text and a mark under the character.
inline void require(strata::status const& s, std::string_view argument, std::string_view text) {
  if (s.ok()) return;
  throw failure(std::string(argument) + ": " + strata::describe(s, text).c_str(),
                exit_code::wrong_use);
}

}  // namespace lm
