// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Continuing many prompts at once, each as if it were alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "generate.hpp"
#include "progress.hpp"
#include "server.hpp"

namespace lm {

/// Room for steps of so many sequences.
inline step_room greedy_room(std::int32_t sequences) {
  return {std::max(std::int32_t{1024}, sequences), sequences};
}

/// Takes the likeliest tokens. As many sequences are open as the server has; where one ends, the
/// next prompt takes its place. Each step brings a token of every sequence that decodes, and fills
/// what rows are left with prompts, for on a device a step of few rows costs what one of many does.
template <class T>
class greedy_batch {
 public:
  /// The server's room must be greedy_room of its sequences at least.
  greedy_batch(server<T>& serving, strata::route_plan const& plan, std::int32_t max_tokens)
      : server_(serving),
        plan_(plan),
        max_tokens_(max_tokens),
        rows_(static_cast<std::size_t>(greedy_room(serving.max_sequences()).rows)) {}

  /// Continues prompts of at least one token each until `ends(token)`, which is not kept, or by
  /// max_tokens; take(number of the prompt, tokens) hears of each when it is done, in any order.
  /// Ends early once interrupted.
  template <class Ends, class Take>
  strata::status run(std::span<std::vector<std::int32_t> const> prompts, Ends const& ends,
                     Take const& take) {
    prompts_ = prompts;
    next_ = 0;
    open_.clear();
    auto outcome = open_more();
    while (outcome.ok() && !open_.empty() && !interrupted()) {
      feed_step();
      outcome = server_.run(feeds_);
      if (outcome.ok()) outcome = take_tokens(ends, take);
      if (outcome.ok()) outcome = open_more();
    }
    for (auto const& o : open_)
      if (auto const s = server_.close(o.id); !s.ok() && outcome.ok()) outcome = s;
    return outcome;
  }

 private:
  struct open_prompt {
    std::size_t number = 0;
    strata::sequence_id id;
    std::size_t fed = 0;   // tokens of the prompt that the server has
    std::size_t next = 0;  // tokens of the step at hand
    std::vector<std::int32_t> made = {};
  };

  strata::status open_more() {
    auto const most = static_cast<std::size_t>(server_.max_sequences());
    while (open_.size() < most && next_ < prompts_.size()) {
      auto const id = server_.open(plan_);
      if (!id.ok()) return id.state();
      open_.push_back({next_++, *id});
    }
    return {};
  }

  bool decodes(open_prompt const& o) const { return o.fed == prompts_[o.number].size(); }

  void feed_step() {
    feeds_.clear();
    auto left = rows_;
    for (auto const& o : open_) left -= decodes(o) ? 1 : 0;
    for (auto& o : open_) {
      std::span<std::int32_t const> const prompt = prompts_[o.number];
      o.next = std::min(left, prompt.size() - o.fed);
      left -= o.next;
      if (decodes(o)) {
        feeds_.push_back({o.id, std::span(&o.made.back(), 1), strata::logits::last});
      } else if (o.next > 0) {
        bool const all = o.fed + o.next == prompt.size();
        feeds_.push_back({o.id, prompt.subspan(o.fed, o.next),
                          all ? strata::logits::last : strata::logits::none});
      }
    }
  }

  /// What every sequence with logits says next; those that end are closed.
  template <class Ends, class Take>
  strata::status take_tokens(Ends const& ends, Take const& take) {
    auto const vocab = static_cast<std::size_t>(server_.config().vocab);
    auto logits = server_.logits();
    strata::status outcome;
    std::vector<open_prompt> still;
    for (auto& o : open_) {
      o.fed += o.next;
      bool ended = false;
      if (decodes(o)) {
        auto const token = choose_token(logits.first(vocab), 0, 0, 0);
        logits = logits.subspan(vocab);
        ended = ends(token);
        if (!ended) o.made.push_back(token);
        ended = ended || o.made.size() == static_cast<std::size_t>(max_tokens_);
      }
      if (ended) {
        if (auto const s = server_.close(o.id); !s.ok() && outcome.ok()) outcome = s;
        take(o.number, o.made);
      } else {
        still.push_back(std::move(o));
      }
    }
    open_ = std::move(still);
    return outcome;
  }

  server<T>& server_;
  strata::route_plan const& plan_;
  std::int32_t max_tokens_;
  std::size_t rows_;
  std::span<std::vector<std::int32_t> const> prompts_;
  std::size_t next_ = 0;  // the prompt that comes next
  std::vector<open_prompt> open_;
  std::vector<feed> feeds_;
};

}  // namespace lm
