// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm generate: the text to stdout as it comes, what it cost to stderr.
#include <cstdio>
#include <string>
#include <vector>

#include "commands.hpp"
#include "generate.hpp"
#include "serving.hpp"
#include "serving_place.hpp"
#include "text_coder.hpp"

namespace lm {

void run_generate(generate_options o) {
  if (o.prompt.empty())
    throw failure("--prompt is empty; give the model at least one token to continue",
                  exit_code::wrong_use);
  auto const codec = choose_codec(o.codec, o.device, cache_codec::f32);
  auto const place = open_model(o.model, {o.device, o.threads, o.weights, o.adapters});
  auto const chosen = resolve_strategy(o.strategy, place->config());
  auto const coder = load_text_coder(o.model);
  require_vocabulary(coder, place->config());
  auto const prompt = o.chat ? coder.encode_chat(o.prompt, o.system ? &*o.system : nullptr)
                             : coder.encode(o.prompt, true, true);

  auto const total = std::int64_t{o.max_tokens} + static_cast<std::int64_t>(prompt.size());
  cache_options const cache{codec, 1, static_cast<std::int32_t>(total)};
  if (o.kv_budget > 0)
    require_fit(cache_bytes(chosen.plan, place->config(), cache), o.kv_budget,
                "K/V of " + count_text(total) + " tokens at " + o.strategy, "--kv-budget");
  auto const serving = place->make_server(chosen.plan, cache, {});

  bool const terminal = is_terminal(stdout);
  byte_printer printer;
  auto const show = [&](std::string const& shown) {
    std::fwrite(shown.data(), 1, shown.size(), stdout);
    std::fflush(stdout);
  };
  if (!o.chat) show(terminal ? byte_printer::print(o.prompt) : o.prompt);
  auto const made =
      continue_prompt(*serving, chosen.plan, prompt,
                      {o.max_tokens, o.temperature, o.seed, coder.ends()}, [&](std::int32_t token) {
                        auto const bytes = coder.decode(token);
                        if (!terminal) return show(bytes);
                        for (char const c : bytes) show(printer.add(static_cast<unsigned char>(c)));
                      });
  if (terminal) show(printer.flush() + "\n");
  if (!terminal) std::fputs("\n", stderr);  // what goes on in a file is the text alone
  auto const after_first = static_cast<double>(made.tokens.size()) - 1;
  std::fprintf(stderr, "%zu tokens; first after %s ms, then %s tokens/s; K/V %s (%s)\n",
               made.tokens.size(), rate_text(made.ttft_ms).c_str(),
               after_first > 0 ? rate_text(after_first / made.seconds).c_str() : "-",
               bytes_text(serving->allocated_bytes()).c_str(), o.strategy.c_str());
}

}  // namespace lm
