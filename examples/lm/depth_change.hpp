// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Text that is read under one set of leaders until its middle, and under a smaller one from there
// on: what `shrink` and `reuse::subset` do to predictions (law 12: both are approximate).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <strata/cache/prefix_index.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

#include "evaluate.hpp"
#include "stack_server.hpp"

namespace lm {

/// How a sequence comes to its second half.
///
/// Under `shrink` it gives its leaders up; under `subset` another sequence finds its first half in
/// an index of prefixes and goes on from there. New tokens meet the same rows in both: those of the
/// leaders that stay, which the larger set computed, while layers that had their own K and V until
/// now read them. Whole blocks are found only, so that where the middle is not between two blocks,
/// the tokens after the last whole one are computed once more, under the smaller set: that alone
/// may differ.
enum class depth_way { stay, shrink, subset };

/// Windows of exactly `context` inputs, whose second half counts.
inline std::vector<window> halved(std::span<window const> windows, std::int32_t context) {
  std::vector<window> out;
  for (auto const& w : windows)
    if (w.inputs == context) out.push_back({w.text, context, context / 2});
  return out;
}

/// Reads windows on a server of its own, of paged storage.
template <class T, class Storage, class Kernel>
class depth_change {
 public:
  /// The model and the threads outlive it. Throws where the index has no memory.
  depth_change(parameters<T> const& model, Storage storage, strata::thread_pool& pool)
      : server_(model, std::move(storage), pool) {
    auto const& held = server_.between_steps();
    auto const blocks = (held.max_tokens() / held.block_size() + 1) * held.max_sequences();
    auto index = index_type::make(held, {.max_entries = blocks});
    require(index.state(), "the index of prefixes");
    index_.emplace(*std::move(index));
  }

  /// One sequence more is needed, while it takes over what was found.
  static constexpr std::int32_t windows_at_once(std::int32_t max_sequences) noexcept {
    return max_sequences > 1 ? max_sequences - 1 : 1;
  }

  /// Calls body(window, token of the window's second half, logits [vocab], next token), window by
  /// window. `after` stores no layer that `before` does not.
  template <class Body>
  strata::status visit(std::span<window const> windows, strata::route_plan const& before,
                       strata::route_plan const& after, depth_way way, Body const& body) {
    auto const batch = static_cast<std::size_t>(windows_at_once(server_.max_sequences()));
    for (std::size_t at = 0; at < windows.size() && !interrupted(); at += batch) {
      auto const part = windows.subspan(at, std::min(batch, windows.size() - at));
      auto outcome = read(part, before, after, way, at, body);
      for (auto const id : open_)
        if (auto const s = server_.close(id); outcome.ok() && !s.ok()) outcome = s;
      open_.clear();
      index_->clear(server_.between_steps());
      if (!outcome.ok()) return outcome;
    }
    return {};
  }

 private:
  using index_type = strata::prefix_index<Storage>;

  template <class Body>
  strata::status read(std::span<window const> windows, strata::route_plan const& before,
                      strata::route_plan const& after, depth_way way, std::size_t first,
                      Body const& body) {
    while (open_.size() < windows.size()) {
      auto const id = server_.open(before);
      if (!id.ok()) return id.state();
      open_.push_back(*id);
    }
    if (auto const s = bring_to_middle(windows); !s.ok()) return s;
    for (std::size_t i = 0; i < windows.size() && way != depth_way::stay; ++i)
      if (auto const s = change(windows[i], open_[i], after, way); !s.ok()) return s;
    // What the index did not find, whose logits nobody asks for.
    if (auto const s = bring_to_middle(windows); !s.ok()) return s;
    return score(windows, first, body);
  }

  strata::status change(window const& w, strata::sequence_id& id, strata::route_plan const& after,
                        depth_way way) {
    auto& storage = server_.between_steps();
    if (way == depth_way::shrink) return storage.shrink(id, after).state();
    std::vector<std::int32_t> const tokens(w.text, w.text + w.inputs);
    auto const known = std::span(tokens).first(static_cast<std::size_t>(w.first_scored));
    if (auto const s = index_->insert(storage, id, known, {}).state(); !s.ok()) return s;
    auto const found = index_->find(tokens, after, {}, strata::reuse::subset);
    auto const next = index_->open(storage, after, found);
    if (!next.ok()) return next.state();
    return server_.close(std::exchange(id, *next));
  }

  /// Tokens before the scored half that sequences do not have yet, without logits.
  strata::status bring_to_middle(std::span<window const> windows) {
    tokens_.clear();
    feeds_.clear();
    for (std::size_t i = 0; i < windows.size(); ++i)
      tokens_.insert(tokens_.end(), windows[i].text + server_.length(open_[i]),
                     windows[i].text + windows[i].first_scored);
    std::span<std::int32_t const> rest = tokens_;
    for (std::size_t i = 0; i < windows.size(); ++i) {
      auto const count =
          static_cast<std::size_t>(windows[i].first_scored - server_.length(open_[i]));
      if (count > 0) feeds_.push_back({open_[i], rest.first(count), strata::logits::none});
      rest = rest.subspan(count);
    }
    return feeds_.empty() ? strata::status{} : server_.run(feeds_);
  }

  /// One window after the other: rows of logits are many.
  template <class Body>
  strata::status score(std::span<window const> windows, std::size_t first, Body const& body) {
    for (std::size_t i = 0; i < windows.size(); ++i) {
      auto const& w = windows[i];
      tokens_.assign(w.text + w.first_scored, w.text + w.inputs);
      if (auto const s = server_.run(feed{open_[i], tokens_, strata::logits::all}); !s.ok())
        return s;
      auto const* row = server_.logits().data();
      for (std::int32_t t = 0; t < w.scored(); ++t, row += server_.config().vocab)
        body(first + i, t, row, w.text[w.first_scored + t + 1]);
    }
    return {};
  }

  stack_server<T, Storage, Kernel> server_;
  std::optional<index_type> index_;
  std::vector<strata::sequence_id> open_;
  std::vector<std::int32_t> tokens_;
  std::vector<feed> feeds_;
};

}  // namespace lm
