// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A small server that meets a ceiling of memory by giving up depth instead of requests: prompts of
// several strategies in one batch, which share what they begin with, and a live table of who has how
// much.
//
//     adaptive_serving [--model model.strata] [--ceiling 400KiB] [--batch 6] [--tokens 96]
//
// Without a model its weights are random: what it does is the same, what it says is not worth reading.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "checkpoint.hpp"
#include "progress.hpp"
#include "scheduler.hpp"
#include "table.hpp"
#include "units.hpp"

namespace {

using adaptive::request;

struct options {
  std::string model;
  std::string ceiling = "400KiB";
  std::int32_t batch = 6;
  std::int32_t tokens = 96;
  std::int32_t threads = 0;
};

char const* const instruction =
    "You are given the beginning of a verse. Go on in the words of the King James Bible, and stop "
    "where the verse does.\n";

/// Beginnings of verses, and how deep a cache each asks for.
struct prompt {
  char const *text, *strategy;
};
prompt const prompts[] = {{"In the beginning God created", "full"},
                          {"The LORD is my shepherd;", "every:2"},
                          {"Vanity of vanities, saith the Preacher,", "full"},
                          {"To every thing there is a season, and a time", "every:2"},
                          {"Comfort ye, comfort ye my people,", "full"},
                          {"How doth the city sit solitary,", "every:4"},
                          {"And it came to pass in those days, that there went out", "full"},
                          {"Though I speak with the tongues of men and of angels,", "every:2"},
                          {"Now faith is the substance of things hoped for,", "full"},
                          {"Intreat me not to leave thee,", "every:4"}};

lm::parameters<float> model_of(options const& o) {
  if (!o.model.empty()) return lm::load_checkpoint(o.model, false).weights;
  lm::model_config config;
  config.dim = 64;
  config.mlp = 128;
  lm::parameters<float> model(config);
  lm::initialise(model, 1);
  return model;
}

std::string table_of(adaptive::scheduler& s, std::int64_t ceiling) {
  char const* const states[] = {"waiting", "prefill", "decoding", "away", "done"};
  lm::text_table table({"request", "state", "tokens", "shared", "asked for", "layers", "K/V"});
  for (std::size_t i = 0; i < s.requests.size(); ++i) {
    auto const& r = s.requests[i];
    table.add({std::to_string(i + 1), states[static_cast<int>(r.state)],
               std::to_string(r.tokens.size()), std::to_string(r.shared), r.strategy,
               r.running() ? std::to_string(s.depth(r)) : "-",
               r.running() ? lm::bytes_text(s.bytes(r)) : "-"});
  }
  auto const& c = s.so_far();
  return table.text() +
         lm::text("  %lld steps; K/V at most %s of %s; %lld shrinks\n\n",
                  static_cast<long long>(c.steps), lm::bytes_text(c.peak_bytes).c_str(),
                  lm::bytes_text(ceiling).c_str(), static_cast<long long>(c.shrinks));
}

/// Serves all prompts under a ceiling.
std::unique_ptr<adaptive::scheduler> serve(options const& o, std::int64_t ceiling,
                                           lm::parameters<float> const& model,
                                           strata::thread_pool& threads, bool shows) {
  constexpr std::int32_t longest = 1024;
  auto s = std::make_unique<adaptive::scheduler>(model, threads, ceiling, o.batch, longest);
  for (auto const& p : prompts) {
    request r;
    r.strategy = p.strategy;
    for (char const c : std::string(instruction) + p.text)
      r.tokens.push_back(static_cast<unsigned char>(c));
    r.prompt_size = r.tokens.size();
    r.wanted = o.tokens;
    s->requests.push_back(std::move(r));
  }
  lm::live_text news(stderr);
  while (!s->done() && !lm::interrupted()) {
    s->tick();
    if (shows) news.show(table_of(*s, ceiling));
  }
  news.clear();
  return s;
}

void print_texts(adaptive::scheduler const& s) {
  for (auto const& r : s.requests) {
    lm::byte_printer printer;
    std::string text;
    for (std::size_t i = std::string(instruction).size(); i < r.tokens.size(); ++i)
      text += printer.add(static_cast<unsigned char>(r.tokens[i]));
    std::printf("%s%s\n", text.c_str(), printer.flush().c_str());
  }
}

int run(options const& o) {
  lm::catch_interrupts();
  auto const model = model_of(o);
  auto const bytes = lm::parse_bytes(o.ceiling);
  if (!bytes)
    throw lm::failure("--ceiling " + o.ceiling + " is no number of bytes, such as 400KiB");
  auto const ceiling = *bytes;
  strata::thread_pool threads(o.threads);
  auto const tight = serve(o, ceiling, model, threads, true);
  if (lm::interrupted()) return 1;
  std::fputs(table_of(*tight, ceiling).c_str(), stdout);
  if (!o.model.empty()) print_texts(*tight);

  // The same without a ceiling: nobody gives up anything.
  auto const roomy = serve(o, std::int64_t{64} << 20, model, threads, false);
  if (lm::interrupted()) return 1;
  auto const &under = tight->so_far(), &free = roomy->so_far();
  std::printf(
      "under %s: %lld steps, at most %s, %lld shrinks, %lld blocks of prefixes evicted, %lld times "
      "offloaded, %lld tokens shared\nwithout:   %lld steps, at most %s, %lld tokens shared\n",
      lm::bytes_text(ceiling).c_str(), static_cast<long long>(under.steps),
      lm::bytes_text(under.peak_bytes).c_str(), static_cast<long long>(under.shrinks),
      static_cast<long long>(under.evicted_blocks), static_cast<long long>(under.offloads),
      static_cast<long long>(under.shared_tokens), static_cast<long long>(free.steps),
      lm::bytes_text(free.peak_bytes).c_str(), static_cast<long long>(free.shared_tokens));
  bool const good = tight->done() && roomy->done() && under.peak_bytes <= ceiling &&
                    free.shrinks == 0 && free.offloads == 0 &&
                    (free.peak_bytes <= ceiling || under.shrinks + under.offloads > 0);
  if (!good) std::fputs("that is not what it should have done\n", stderr);
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Serves ten prompts under a ceiling of memory.");
  app.add_option("--model", o.model, "a model of strata-lm")->check(CLI::ExistingFile);
  app.add_option("--ceiling", o.ceiling, "bytes of K and V")->capture_default_str();
  app.add_option("--batch", o.batch, "requests at a time")->check(CLI::Range(1, 10));
  app.add_option("--tokens", o.tokens, "new tokens of each")->check(CLI::Range(1, 500));
  app.add_option("--threads", o.threads, "0: all")->check(CLI::Range(0, 1024));
  CLI11_PARSE(app, argc, argv);
  try {
    return run(o);
  } catch (lm::failure const& f) {
    std::fprintf(stderr, "%s\n", f.what());
    return 1;
  }
}
