// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a strategy is worth: the loss of a text through the serving path, and how fast it serves.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <strata/plan.hpp>
#include <strata/status.hpp>

#include "layers.hpp"
#include "progress.hpp"
#include "server.hpp"

namespace lm {

/// A stretch of text that goes through the model at once, tokens 0 .. inputs - 1. Input i predicts
/// token i + 1; the predictions from `first_scored` on count.
struct window {
  std::int32_t const* text = nullptr;  ///< [inputs + 1]
  std::int32_t inputs = 0;
  std::int32_t first_scored = 0;

  std::int32_t scored() const noexcept { return inputs - first_scored; }
};

/// Cuts a text into windows of at most `context` inputs that begin every `stride` tokens, from 1 to
/// `context`, so that each token but the first is scored exactly once: in the first window all of
/// them, in every other one those that the window before it has not scored, the last `stride` ones.
inline std::vector<window> cut_windows(std::span<std::int32_t const> text, std::int32_t context,
                                       std::int32_t stride) {
  std::vector<window> windows;
  auto const predictions = static_cast<std::int64_t>(text.size()) - 1;
  std::int64_t scored = 0;
  for (std::int64_t begin = 0; scored < predictions; begin += stride) {
    auto const end = std::min(begin + context, predictions);
    windows.push_back({text.data() + begin, static_cast<std::int32_t>(end - begin),
                       static_cast<std::int32_t>(scored - begin)});
    scored = end;
  }
  return windows;
}

/// A passage and the same passage once more: only the second copy is scored,
/// from its second token on, which is the first that the first copy gives away.
inline std::vector<std::vector<std::int32_t>> repeated_passages(std::span<std::int32_t const> text,
                                                                std::int32_t context) {
  std::vector<std::vector<std::int32_t>> passages;
  auto const half = static_cast<std::size_t>((context + 1) / 2);
  for (std::size_t at = 0; half > 1 && at + half <= text.size(); at += half) {
    auto const once = text.subspan(at, half);
    passages.emplace_back(once.begin(), once.end());
    passages.back().insert(passages.back().end(), once.begin(), once.end());
  }
  return passages;
}

/// Sum of losses in nats, and over how many tokens.
struct loss_sum {
  double nats = 0;
  std::int64_t tokens = 0;

  double mean() const noexcept { return tokens == 0 ? 0 : nats / static_cast<double>(tokens); }
  loss_sum& operator+=(loss_sum const& other) noexcept {
    nats += other.nats;
    tokens += other.tokens;
    return *this;
  }
};

/// Rows of a step of scoring, all of which may want logits.
inline constexpr std::int32_t scoring_rows = 1024;

/// Scores windows, as many at a time as the server has sequences. What comes before a window's
/// scored part asks for no logits, so that above the tail it costs nothing.
template <class T>
class window_scorer {
 public:
  /// step_tokens bounds the rows of a step.
  window_scorer(server<T>& serving, strata::route_plan const& plan,
                std::int32_t step_tokens = scoring_rows)
      : server_(serving), plan_(plan), step_tokens_(step_tokens) {}

  /// The loss of all windows, or of those that were scored before somebody interrupted.
  strata::result<loss_sum> score(std::span<window const> windows) {
    loss_sum total;
    auto const vocab = std::int64_t{server_.config().vocab};
    auto const outcome = visit(windows, [&](std::size_t, T const* row, std::int32_t next) {
      total += {token_loss(row, vocab, next), 1};
    });
    if (!outcome.ok()) return outcome;
    return total;
  }

  /// Calls body(window, logits [vocab], the token that came next) for every prediction that counts.
  /// Which follows which depends on the windows, on how many go at a time and on step_tokens alone:
  /// servers of other plans and codecs show theirs in the same order.
  template <class Visit>
  strata::status visit(std::span<window const> windows, Visit const& body) {
    auto const batch = static_cast<std::size_t>(server_.max_sequences());
    for (std::size_t at = 0; at < windows.size() && !interrupted(); at += batch) {
      first_window_ = at;
      auto const part = windows.subspan(at, std::min(batch, windows.size() - at));
      if (auto const s = visit_batch(part, body); !s.ok()) return s;
    }
    return {};
  }

 private:
  struct open_window {
    window text;
    strata::sequence_id id;
    std::int32_t done = 0;  // inputs fed
    std::int32_t next = 0;  // inputs of the step at hand
    bool scores = false;    // whether those count

    std::int32_t const* at() const { return text.text + done; }
  };

  template <class Visit>
  strata::status visit_batch(std::span<window const> windows, Visit const& body) {
    open_.clear();
    strata::status outcome;
    for (std::size_t i = 0; i < windows.size() && outcome.ok(); ++i) {
      auto const id = server_.open(plan_);
      outcome = id.state();
      if (id.ok()) open_.push_back({windows[i], *id});
    }
    while (outcome.ok() && prepare_step()) outcome = run_step(body);
    for (auto const& o : open_)
      if (auto const s = server_.close(o.id); !s.ok() && outcome.ok()) outcome = s;
    return outcome;
  }

  /// Gives every window its next tokens: up to where its scored part begins, then from there. False
  /// if all are through.
  bool prepare_step() {
    auto const share =
        std::max<std::int32_t>(step_tokens_ / static_cast<std::int32_t>(open_.size()), 1);
    tokens_.clear();
    for (auto& o : open_) {
      o.scores = o.done >= o.text.first_scored;
      o.next = std::min((o.scores ? o.text.inputs : o.text.first_scored) - o.done, share);
      tokens_.insert(tokens_.end(), o.at(), o.at() + o.next);
    }
    return !tokens_.empty();
  }

  template <class Visit>
  strata::status run_step(Visit const& body) {
    feeds_.clear();
    std::span<std::int32_t const> rest = tokens_;
    for (auto const& o : open_) {
      auto const count = static_cast<std::size_t>(o.next);
      if (count > 0)
        feeds_.push_back(
            {o.id, rest.first(count), o.scores ? strata::logits::all : strata::logits::none});
      rest = rest.subspan(count);
    }
    if (auto const s = server_.run(feeds_); !s.ok()) return s;
    auto const vocab = std::int64_t{server_.config().vocab};
    auto const* row = server_.logits().data();
    auto which = first_window_;
    for (auto& o : open_) {
      for (std::int32_t i = 0; o.scores && i < o.next; ++i, row += vocab)
        body(which, row, o.at()[i + 1]);
      o.done += o.next;
      ++which;
    }
    return {};
  }

  server<T>& server_;
  strata::route_plan plan_;
  std::int32_t step_tokens_;
  std::size_t first_window_ = 0;  // of those that are open
  std::vector<open_window> open_;
  std::vector<std::int32_t> tokens_;
  std::vector<feed> feeds_;
};

/// Times of one request: a prompt, then one token at a time.
struct speed {
  double ttft_ms = 0;  ///< until the logits of the prompt's last token
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;
};

/// Serves a prompt and `new_tokens` more, `repetitions` times after one warm-up, and takes the
/// fastest of each time: what else runs on the machine only ever adds. One free sequence of
/// prompt + new_tokens tokens is needed; the tokens fed are the prompt's own, so that all
/// strategies do the same work.
template <class T>
strata::result<speed> measure_speed(server<T>& serving, strata::route_plan const& plan,
                                    std::span<std::int32_t const> prompt, std::int32_t new_tokens,
                                    int repetitions = 3) {
  double prefill_seconds = 0, decode_seconds = 0;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    auto const id = serving.open(plan);
    if (!id.ok()) return id.state();
    stopwatch const clock;
    auto outcome = prefill(serving, *id, prompt, prefill_chunk);
    auto const first = clock.seconds();
    for (std::int32_t i = 0; i < new_tokens && outcome.ok(); ++i) {
      auto const& token = prompt[static_cast<std::size_t>(i) % prompt.size()];
      outcome = serving.run(feed{*id, std::span(&token, 1), strata::logits::last});
    }
    auto const rest = clock.seconds() - first;
    if (auto const s = serving.close(*id); outcome.ok() && !s.ok()) outcome = s;
    if (!outcome.ok()) return outcome;
    bool const first_timed = repetition <= 1;  // repetition 0 warms up
    prefill_seconds = first_timed ? first : std::min(prefill_seconds, first);
    decode_seconds = first_timed ? rest : std::min(decode_seconds, rest);
  }
  return speed{prefill_seconds * 1e3, static_cast<double>(prompt.size()) / prefill_seconds,
               new_tokens / decode_seconds};
}

/// The largest difference between logits when a text goes through the model at once and token by
/// token (law 5), the whole text scored. Two free sequences are needed.
template <class T>
strata::result<double> stepwise_difference(server<T>& serving, strata::route_plan const& plan,
                                           std::span<std::int32_t const> tokens) {
  auto const whole = serving.open(plan);
  if (!whole.ok()) return whole.state();
  auto const single = serving.open(plan);
  if (!single.ok()) return single.state();
  auto outcome = serving.run(feed{*whole, tokens, strata::logits::all});
  std::vector<T> const expected(serving.logits().begin(), serving.logits().end());
  double largest = 0;
  auto at = expected.begin();
  for (std::size_t i = 0; i < tokens.size() && outcome.ok(); ++i) {
    outcome = serving.run(feed{*single, tokens.subspan(i, 1), strata::logits::last});
    for (auto const logit : serving.logits())
      largest =
          std::max(largest, std::abs(static_cast<double>(logit) - static_cast<double>(*at++)));
  }
  for (auto const id : {*whole, *single})
    if (auto const s = serving.close(id); outcome.ok() && !s.ok()) outcome = s;
  if (!outcome.ok()) return outcome;
  return largest;
}

}  // namespace lm
