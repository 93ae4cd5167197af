// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// `strata-lm tokens`: what a tokenizer makes of a text, and of tokens.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace lm {

struct tokens_options {
  std::string tokenizer;  ///< a tokenizer.json, a folder that has one, or a GGUF file
  std::string text;       ///< a file to encode; none of these three: standard input
  std::string texts;      ///< or a JSON array of texts, each for itself
  std::string ids;        ///< or a file of ids to decode, with white space between them
  bool ends = false;      ///< encode_options
  bool as_text = false;   ///< special tokens are text like other
  bool pieces = false;    ///< each token with its text
};

void add_tokens_command(CLI::App& program);

/// Prints a token's id per line; of `texts` a line of ids per text; of `ids` their bytes. Throws
/// `failure`.
void run_tokens(tokens_options options);

}  // namespace lm
