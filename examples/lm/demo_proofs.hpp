// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the demo shows besides losses: the same prompt continued, token by token against the full
// pass, and a memory ceiling that only a shared cache stays under.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "demo_arms.hpp"
#include "demo_clock.hpp"
#include "evaluate.hpp"
#include "generate.hpp"
#include "serving.hpp"

namespace lm {

/// The beginning of a held-out block, from a word's first byte on.
inline std::vector<std::int32_t> held_out_prompt(corpus const& text_read, std::size_t size) {
  auto const& block = text_read.scored().front();
  std::size_t begin = 0;
  while (begin + 1 < block.size() && block[begin] != ' ' && block[begin] != '\n') ++begin;
  begin = std::min(begin + 1, block.size() - std::min(size, block.size()));
  std::vector<std::int32_t> prompt;
  for (auto i = begin; i < block.size() && prompt.size() < size; ++i) prompt.push_back(block[i]);
  return prompt;
}

inline std::string bytes_of(std::span<std::int32_t const> tokens) {
  std::string bytes;
  for (auto const token : tokens) bytes += static_cast<char>(token);
  return bytes;
}

/// One text on one line that a terminal can show.
inline std::string one_line(std::string const& bytes) {
  auto line = byte_printer::print(bytes);
  std::ranges::replace(line, '\n', ' ');
  return line;
}

/// The same prompt continued by models at strategies, by the same random numbers.
inline std::string continuations(experiment const& e, corpus const& text_read, std::uint64_t seed,
                                 strata::thread_pool& pool) {
  auto const context = e.arms().front().spec().model.context;
  auto const half = context / 2;
  auto const prompt = held_out_prompt(text_read, static_cast<std::size_t>(half));
  std::string out = "The same prompt continued (temperature 0.7, one seed):\n  prompt          \"" +
                    one_line(bytes_of(prompt)) + "\"\n";
  for (auto const* const name : {"plain", "rcla"})
    for (auto const* const given : {"full", "every:4"}) {
      auto const& a = e[name];
      auto const s = resolve_strategy(given, a.spec().model);
      auto const serving = make_server(a.weights(), pool, s.plan, {cache_codec::f32, 1, context});
      auto const made = continue_prompt(*serving, s.plan, std::span<std::int32_t const>(prompt),
                                        {context - half, 0.7, seed}, [](std::int32_t) {});
      out += text("  %-6s%-8s  \"", name, given) + one_line(bytes_of(made.tokens)) + "\"\n";
    }
  return out;
}

/// "token by token equals full pass, largest difference X", the largest over strategies.
inline std::string stepwise_line(arm const& a, corpus const& text_read, strata::thread_pool& pool) {
  auto const context = a.spec().model.context;
  auto const tokens = held_out_prompt(text_read, static_cast<std::size_t>(context));
  double largest = 0;
  for (auto const& given : demo_strategies()) {
    auto const s = resolve_strategy(given, a.spec().model);
    auto const serving = make_server(a.weights(), pool, s.plan, {cache_codec::f32, 2, context});
    auto const difference =
        stepwise_difference(*serving, s.plan, std::span<std::int32_t const>(tokens));
    require(difference.state(), "token by token");
    largest = std::max(largest, *difference);
  }
  return text(
      "%s: token by token equals full pass, largest difference %.1e in a logit (%zu tokens, "
      "%zu strategies)\n",
      a.spec().name.c_str(), largest, tokens.size(), demo_strategies().size());
}

/// Fills all sequences of a server with held-out text, in one step; the number of tokens.
inline std::int64_t serve_batch(server<float>& serving, strata::route_plan const& plan,
                                corpus const& text_read) {
  auto const tokens = held_out_prompt(text_read, static_cast<std::size_t>(serving.max_tokens()));
  std::vector<feed> batch;
  for (std::int32_t i = 0; i < serving.max_sequences(); ++i) {
    auto const id = serving.open(plan);
    require(id.state(), "opening a sequence");
    batch.push_back({*id, tokens, strata::logits::last});
  }
  require(serving.run(batch), "a batch under the ceiling");
  return static_cast<std::int64_t>(tokens.size()) * serving.max_sequences();
}

/// A batch in memory of a fixed size, half of what full needs: the storage itself refuses full, and
/// every:4 runs to the end in the same bytes.
inline std::string ceiling_lines(arm const& a, corpus const& text_read, strata::thread_pool& pool) {
  constexpr std::int32_t sequences = 16;
  auto const& config = a.spec().model;
  cache_options const cache{cache_codec::f32, sequences, config.context};
  auto const full = resolve_strategy("full", config);
  auto const ceiling = cache_bytes(full.plan, config, cache) / 2;
  aligned_buffer<std::byte> memory(ceiling);
  auto const half = static_cast<std::size_t>(ceiling / 2);  // K and V are equally large
  std::string out =
      text("In %s of memory, half of it for K and half for V, %d sequences of %d tokens:\n",
           bytes_text(ceiling).c_str(), sequences, config.context);
  for (auto const* const given : {"full", "every:4"}) {
    auto const s = resolve_strategy(given, config);
    try {
      auto const serving = make_server(a.weights(), pool, s.plan, cache,
                                       {memory.values().first(half), memory.values().last(half)});
      auto const tokens = serve_batch(*serving, s.plan, text_read);
      out += text("  %-8s  completes: %s tokens in %s bytes\n", given, count_text(tokens).c_str(),
                  count_text(serving->allocated_bytes()).c_str());
    } catch (failure const& refusal) {
      if (cache_bytes(s.plan, config, cache) <= ceiling) throw;
      out += text("  %-8s  refused: %s\n", given, refusal.what());
    }
  }
  return out;
}

}  // namespace lm
