// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Two storages and a tier beside a naive model of them, through long runs of random operations: after
// each, every block and every page is accounted for and tokens read as they were written.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <strata/cache/host_tier.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/plan.hpp>

#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/windowed_layers.hpp"

using strata::errc;
using strata::layer_id;
using strata::sequence_id;
using strata::status;

namespace windowed = support::windowed;

namespace {

using tiered_storage = strata::paged_storage<strata::f32_codec>;

constexpr std::int32_t most_tiered_tokens = 30, most_tiered_sequences = 4, tier_places = 3,
                       model_page = 64;
constexpr std::int32_t tier_block_sizes[] = {4, 3};

std::vector<strata::route_plan> tiered_plans() {
  std::vector<std::int32_t> const all = {0, 1, 2, 3, 4}, pairs = {0, 0, 2, 2, 4},
                                  one = {0, 0, 0, 0, 0}, sliding = {0, 1, 0, 1, 0};
  return {windowed::plan_of(all, all), windowed::plan_of(pairs, pairs),
          windowed::plan_of(sliding, one), windowed::plan_of(all, sliding)};
}

struct tiered_tensor {
  std::int32_t first = 0;                     // token that is still there
  std::vector<std::shared_ptr<char>> blocks;  // shared by who holds them; null: let go
  std::vector<float> names;                   // of all tokens
};

struct tiered_sequence {
  strata::route_plan plan;
  std::vector<std::int32_t> positions = {};
  bool approximate = false;
  std::map<std::pair<bool, std::int32_t>, tiered_tensor> tensors = {};  // (is_k, layer)
  int storage = 0;                                                      // or -1: in the tier
  sequence_id id = {};
  strata::tier_id away = {};

  std::int32_t length() const { return static_cast<std::int32_t>(positions.size()); }
  std::int32_t next_position() const { return positions.empty() ? 0 : positions.back() + 1; }
  std::int64_t pages() const {
    std::int64_t bytes = 0;
    for (auto const& [which, t] : tensors) bytes += 4 * (length() - t.first);
    return (bytes + model_page - 1) / model_page;
  }
  /// Blocks of K (or V) of so many tokens that it would take anew.
  std::int64_t needs(bool is_k, std::int32_t block_size) const {
    std::int64_t count = 0;
    for (auto const& [which, t] : tensors)
      if (which.first == is_k)
        count += (length() + block_size - 1) / block_size - t.first / block_size;
    return count;
  }
};

class tiered_model {
 public:
  tiered_model(std::uint32_t seed, std::int32_t blocks, std::int64_t tier_pages)
      : random_(seed),
        all_plans_(tiered_plans()),
        storages_{make(0, blocks), make(1, blocks)},
        tier_(*strata::host_tier<>::make(storages_[0],
                                         {tier_pages * model_page, tier_places, model_page})),
        num_blocks_(blocks),
        num_pages_(tier_pages) {}

  std::map<char const*, std::int64_t> done;

  void operate() {
    switch (below(9)) {
      case 0:
        return open();
      case 1:
        return close();
      case 2:
        return fork();
      case 3:
        return shrink();
      case 4:
      case 5:
        return offload();
      case 6:
        return reload();
      default:
        return grow();
    }
  }

  bool agrees() {
    std::int64_t pages = 0, away = 0;
    for (auto const& s : all_) {
      if (s.storage >= 0) continue;
      pages += s.pages();
      ++away;
    }
    if (tier_.size() != away || tier_.free_bytes() != (num_pages_ - pages) * model_page)
      return false;
    for (int i = 0; i < 2; ++i) {
      if (at(i).free_k_blocks() != num_blocks_ - held(i, true)) return false;
      if (at(i).free_v_blocks() != num_blocks_ - held(i, false)) return false;
    }
    auto* const s = any();
    return s == nullptr || s->storage < 0 || reads_as_written(*s);
  }

 private:
  static tiered_storage make(int which, std::int32_t blocks) {
    return *tiered_storage::make(windowed::classes(), {most_tiered_sequences, most_tiered_tokens,
                                                       tier_block_sizes[which], blocks, blocks});
  }
  tiered_storage& at(int i) { return storages_[static_cast<std::size_t>(i)]; }
  std::int32_t below(std::size_t n) { return static_cast<std::int32_t>(random_() % n); }
  strata::route_plan const& any_plan() {
    return all_plans_[static_cast<std::size_t>(below(all_plans_.size()))];
  }
  tiered_sequence* any() {
    return all_.empty() ? nullptr : &all_[static_cast<std::size_t>(below(all_.size()))];
  }
  std::int64_t open_in(int storage) const {
    return std::ranges::count_if(all_, [&](auto const& s) { return s.storage == storage; });
  }
  std::int64_t held(int storage, bool is_k) const {
    std::set<char const*> blocks;
    for (auto const& s : all_)
      for (auto const& [which, t] : s.tensors)
        for (auto const& b : t.blocks)
          if (s.storage == storage && which.first == is_k && b != nullptr) blocks.insert(b.get());
    return static_cast<std::int64_t>(blocks.size());
  }
  void note(char const* what, bool as_expected) {
    if (!as_expected) FAIL_CHECK(what);
    ++done[what];
  }
  void erase(tiered_sequence const* s) { all_.erase(all_.begin() + (s - all_.data())); }

  void open() {
    auto const& plan = any_plan();
    int const where = below(2);
    auto const id = at(where).open(plan);
    if (open_in(where) == most_tiered_sequences)
      return note("open refused", id.state().code == errc::too_many_sequences);
    note("open", id.ok());
    tiered_sequence s{plan};
    s.storage = where;
    s.id = *id;
    for (bool const is_k : {true, false})
      for (std::int32_t l = 0; l < plan.num_layers; ++l)
        if (windowed::stores(plan, is_k, l)) s.tensors[{is_k, l}] = {};
    all_.push_back(s);
  }
  /// Or forgets one of the tier.
  void close() {
    auto* const s = any();
    if (s == nullptr || below(2) == 0) return;
    if (s->storage < 0)
      note("drop", tier_.drop(s->away).ok() && tier_.drop(s->away).code == errc::not_in_tier);
    else
      note("close", at(s->storage).close(s->id).ok());
    erase(s);
  }
  void fork() {
    auto* const s = any();
    if (s == nullptr || s->storage < 0 || open_in(s->storage) == most_tiered_sequences) return;
    auto const child = at(s->storage).fork(s->id);
    note("fork", child.ok());
    auto copy = *s;
    copy.id = *child;
    all_.push_back(copy);
  }
  void shrink() {
    auto* const s = any();
    if (s == nullptr || s->storage < 0 || below(3) > 0) return;
    auto const& plan = any_plan();
    for (bool const is_k : {true, false})
      for (std::int32_t l = 0; l < plan.num_layers; ++l)
        if (windowed::stores(plan, is_k, l) && !windowed::stores(s->plan, is_k, l)) return;
    note("shrink", at(s->storage).shrink(s->id, plan).ok());
    if (!(plan == s->plan)) s->approximate = s->length() > 0;
    s->plan = plan;
    std::erase_if(s->tensors, [&](auto const& tensor) {
      return !windowed::stores(plan, tensor.first.first, tensor.first.second);
    });
  }

  void offload() {
    auto* const s = any();
    if (s == nullptr || s->storage < 0) return;
    auto const free = tier_.free_bytes() / model_page;
    auto const away = tier_.offload(at(s->storage), s->id);
    if (open_in(-1) == tier_places)
      return note("tier: no place", away.state().code == errc::too_many_sequences);
    auto const missing = (s->pages() - free) * model_page;
    if (missing > 0)
      return note("tier: full", away.state() == status{errc::out_of_tier_bytes, strata::no_layer,
                                                       missing, free * model_page});
    note("offload", away.ok());
    s->away = *away;
    s->storage = -1;
    for (auto& [which, t] : s->tensors) t.blocks.clear();
  }

  void reload() {
    auto* const s = any();
    if (s == nullptr || s->storage >= 0) return;
    int const where = below(2);
    auto const size = tier_block_sizes[where];
    auto const id = tier_.reload(at(where), s->away);
    if (open_in(where) == most_tiered_sequences)
      return note("reload: no place", id.state().code == errc::too_many_sequences);
    auto const k_free = num_blocks_ - held(where, true), v_free = num_blocks_ - held(where, false);
    auto const k = s->needs(true, size) - k_free, v = s->needs(false, size) - v_free;
    if (k > 0 && k >= v)
      return note("reload: no blocks",
                  id.state() == status{errc::out_of_k_blocks, strata::no_layer, k, k_free});
    if (v > 0)
      return note("reload: no blocks",
                  id.state() == status{errc::out_of_v_blocks, strata::no_layer, v, v_free});
    note("reload", id.ok());
    s->storage = where;
    s->id = *id;
    for (auto& [which, t] : s->tensors) {
      t.blocks.resize(static_cast<std::size_t>((s->length() + size - 1) / size));
      for (auto b = static_cast<std::size_t>(t.first / size); b < t.blocks.size(); ++b)
        t.blocks[b] = std::make_shared<char>();
    }
  }

  /// A few tokens of one sequence; gaps in positions now and then.
  void grow() {
    auto* const s = any();
    if (s == nullptr || s->storage < 0) return;
    auto const size = tier_block_sizes[s->storage];
    strata::growth g{s->id, below(9)};
    if (below(6) == 0) g.first_position = s->next_position() + below(3);
    auto const outcome = at(s->storage).reserve({&g, 1});
    if (s->length() + g.new_tokens > most_tiered_tokens)
      return note("sequence full", outcome.code == errc::sequence_full);
    if (!outcome.ok())
      return note("no blocks",
                  outcome.code == errc::out_of_k_blocks || outcome.code == errc::out_of_v_blocks);
    note("grow", true);
    auto position = g.first_position < 0 ? s->next_position() : g.first_position;
    for (std::int32_t i = 0; i < g.new_tokens; ++i) {
      auto const token = s->length();
      for (auto& [which, t] : s->tensors) {
        name_ = name_ < 1e6F ? name_ + 1 : 1;
        t.names.push_back(name_);
        if (token % size == 0) t.blocks.emplace_back();
        if (token % size == 0 || t.blocks.back().use_count() > 1)
          t.blocks.back() = std::make_shared<char>();
        *element(*s, which, token) = name_;
      }
      s->positions.push_back(position++);
    }
    at(s->storage).commit();
    for (auto& [which, t] : s->tensors) let_go(*s, which.second, t, size);
  }
  /// Blocks whose tokens no later query sees.
  static void let_go(tiered_sequence const& s, std::int32_t l, tiered_tensor& t,
                     std::int32_t size) {
    if (l % 2 == 0) return;
    std::int32_t seen = 0;
    while (seen < s.length() &&
           s.next_position() - s.positions[static_cast<std::size_t>(seen)] >= windowed::window)
      ++seen;
    if (seen / size <= t.first / size) return;
    t.first = seen / size * size;
    for (std::int32_t b = 0; b < seen / size; ++b) t.blocks[static_cast<std::size_t>(b)].reset();
  }

  float* element(tiered_sequence const& s, std::pair<bool, std::int32_t> which,
                 std::int32_t token) {
    auto& storage = at(s.storage);
    layer_id const l{which.second};
    auto const blocks = which.first ? storage.k_blocks(l) : storage.v_blocks(l);
    return reinterpret_cast<float*>(blocks.at(storage.k_row(s.id, l), 0, token));
  }
  bool reads_as_written(tiered_sequence const& s) {
    auto const& storage = at(s.storage);
    if (!(storage.plan(s.id) == s.plan) || storage.length(s.id) != s.length() ||
        storage.next_position(s.id) != s.next_position() ||
        storage.approximate(s.id) != s.approximate ||
        !std::ranges::equal(storage.token_positions(s.id), s.positions))
      return false;
    for (auto const& [which, t] : s.tensors) {
      auto const side = which.first ? strata::tensor::k : strata::tensor::v;
      if (storage.first_token(s.id, {which.second}, side) != t.first) return false;
      for (auto token = t.first; token < s.length(); ++token)
        if (*element(s, which, token) != t.names[static_cast<std::size_t>(token)]) return false;
    }
    return true;
  }

  std::mt19937 random_;
  std::vector<strata::route_plan> all_plans_;
  std::array<tiered_storage, 2> storages_;
  strata::host_tier<> tier_;
  std::int64_t num_blocks_, num_pages_;
  std::vector<tiered_sequence> all_;
  float name_ = 0;
};

}  // namespace

TEST_CASE("storages and a tier do what their model does, 100000 operations long") {
  std::int64_t const operations = 25'000 / support::case_step();  // a seed
  std::map<char const*, std::int64_t> done;
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    CAPTURE(seed);
    // Few blocks and many, few pages and many.
    tiered_model both(seed, seed % 2 == 0 ? 40 : 90, seed < 3 ? 18 : 60);
    std::int64_t i = 0;
    for (bool good = true; good && i < operations; ++i) {
      both.operate();
      good = both.agrees();
    }
    REQUIRE(i == operations);
    for (auto const& [what, count] : both.done) done[what] += count;
  }
  // Each thing has happened, often.
  for (auto const* what : {"open", "open refused", "close", "drop", "fork", "shrink", "offload",
                           "tier: no place", "tier: full", "reload", "reload: no place",
                           "reload: no blocks", "grow", "sequence full", "no blocks"}) {
    CAPTURE(std::string(what));
    CHECK(done[what] >= operations / 500);
  }
}
