// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Questions with the passages that answer them: files of JSON lines, and the plain text in which a
// model sees one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lm {

/// One line of a file. All its texts are of one line each: a new line ends a passage, a question
/// and, for models of bytes, an answer.
struct question {
  std::string set;                    ///< the collection that it is counted in
  std::vector<std::string> passages;  ///< the context, at least one
  std::string text;
  std::vector<std::string> answers;  ///< accepted ones; the first is what training teaches
  std::int64_t line = 0;             ///< in its file, from 1
};

/// The questions of a file, each line an object
///   {"set": "...", "passages": ["..."], "question": "...", "answers": ["..."]}.
/// Throws where a field is missing, empty, unknown or of another type, with file, line and field.
std::vector<question> read_questions(std::string const& path);

/// The same of the text of a file, which messages call `path`.
std::vector<question> parse_questions(std::string_view text, std::string const& path);

/// Up to where the answer begins, its first space not included. `order` permutes the passages;
/// empty: they are as they are. Throws where it is no permutation of them.
std::string prompt_text(question const& q, bool question_first,
                        std::span<std::int32_t const> order);

/// What follows the prompt, up to the end mark: a space and the first answer.
std::string answer_text(question const& q);

}  // namespace lm
