// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A conversation in ChatML, as SmolLM2-Instruct and Qwen3 were trained to read it: for SmolLM2, to
// the byte what the template in its files makes. Templates are programs of their own and are not run.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "failure.hpp"
#include "tokenizer/tokenizer.hpp"

namespace lm {

struct chat_message {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

inline constexpr std::string_view chat_begin = "<|im_start|>", chat_end = "<|im_end|>";
/// What comes first in SmolLM2's conversations where the first message is no system's.
inline constexpr std::string_view smollm2_system =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

namespace detail {

/// Calls f(role and content) for each message, and for `system` where that is one and none begins
/// the conversation.
template <class F>
void each_chat_message(std::span<chat_message const> messages, std::string_view system,
                       F const& f) {
  if (!system.empty() && !messages.empty() && messages[0].role != "system")
    f("system\n" + std::string(system));
  for (auto const& message : messages) f(message.role + "\n" + message.content);
}

}  // namespace detail

/// The text. system: what the model is told where no message of the system's does, empty: nothing.
/// answer: it ends where the model's answer begins. A content that holds the marks of messages reads
/// like messages: chat_tokens keeps them apart.
inline std::string chat_prompt(std::span<chat_message const> messages, std::string_view system,
                               bool answer = true) {
  std::string prompt;
  detail::each_chat_message(messages, system, [&](std::string const& body) {
    prompt.append(chat_begin).append(body).append(chat_end).append("\n");
  });
  if (answer) prompt.append(chat_begin).append("assistant\n");
  return prompt;
}

/// The same as tokens, where whatever a message says is text, marks of messages among it. Equals
/// encode(chat_prompt(messages)) where no message has special tokens in it.
inline std::vector<std::int32_t> chat_tokens(tokenizer const& by,
                                             std::span<chat_message const> messages,
                                             std::string_view system, bool answer = true) {
  auto const *const begin = by.added(chat_begin), *const end = by.added(chat_end);
  if (begin == nullptr || end == nullptr || !begin->special || !end->special)
    throw failure(
        "this tokenizer has no special tokens <|im_start|> and <|im_end|>: its model reads no "
        "ChatML");
  std::vector<std::int32_t> tokens;
  auto const append = [&](std::string_view text) {
    auto const more = by.encode(text, {.special = false});
    tokens.insert(tokens.end(), more.begin(), more.end());
  };
  detail::each_chat_message(messages, system, [&](std::string const& body) {
    tokens.push_back(begin->id);
    append(body);
    tokens.push_back(end->id);
    append("\n");
  });
  if (!answer) return tokens;
  tokens.push_back(begin->id);
  append("assistant\n");
  return tokens;
}

}  // namespace lm
