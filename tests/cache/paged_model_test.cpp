// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A paged storage beside a naive model of one, through long runs of random operations: after each,
// every block is accounted for and every token reads as it was written.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <strata/cache/paged_storage.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/plan.hpp>

#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/windowed_layers.hpp"

using strata::errc;
using strata::layer_id;
using strata::sequence_id;

namespace windowed = support::windowed;

namespace {

using modelled_storage = strata::paged_storage<strata::f32_codec>;

constexpr std::int32_t model_block_size = 4, most_model_tokens = 30, most_model_sequences = 6;

std::vector<strata::route_plan> model_plans() {
  std::vector<std::int32_t> const all = {0, 1, 2, 3, 4}, pairs = {0, 0, 2, 2, 4},
                                  one = {0, 0, 0, 0, 0}, sliding = {0, 1, 0, 1, 0};
  return {windowed::plan_of(all, all), windowed::plan_of(pairs, pairs),
          windowed::plan_of(one, one), windowed::plan_of(sliding, sliding),
          windowed::plan_of(all, one), windowed::plan_of(pairs, sliding)};
}

/// A block as the model has it: the names of its tokens, shared by who holds it.
using model_block = std::vector<float>;
/// A stored tensor: its blocks, the first ones null once they were let go.
using model_tensor = std::vector<std::shared_ptr<model_block>>;

struct model_sequence {
  strata::route_plan plan;
  std::vector<std::int32_t> positions;                            // of its tokens
  std::map<std::pair<bool, std::int32_t>, model_tensor> tensors;  // (is_k, layer)

  std::int32_t length() const { return static_cast<std::int32_t>(positions.size()); }
  std::int32_t next_position() const { return positions.empty() ? 0 : positions.back() + 1; }
};

class paged_model {
 public:
  std::map<std::int32_t, model_sequence> sequences;  // by id
  std::int32_t rollback = 0;

  void open(sequence_id id, strata::route_plan const& plan) {
    auto& s = sequences[id.index] = {plan, {}, {}};
    for (bool const is_k : {true, false})
      for (std::int32_t l = 0; l < plan.num_layers; ++l)
        if (windowed::stores(plan, is_k, l)) s.tensors[{is_k, l}] = {};
  }

  /// Blocks of K (or V) that are held by anybody.
  std::int64_t held(bool is_k) const {
    std::set<model_block const*> blocks;
    for (auto const& [id, s] : sequences)
      for (auto const& [which, tensor] : s.tensors)
        for (auto const& block : tensor)
          if (which.first == is_k && block != nullptr) blocks.insert(block.get());
    return static_cast<std::int64_t>(blocks.size());
  }

  /// One more token of a tensor; a block that others hold is copied first.
  static void put(model_tensor& tensor, std::int32_t token, float name) {
    if (token % model_block_size == 0) tensor.push_back(std::make_shared<model_block>());
    auto& block = tensor.back();
    if (block.use_count() > 1) block = std::make_shared<model_block>(*block);
    block->resize(static_cast<std::size_t>(token % model_block_size));
    block->push_back(name);
  }

  /// The first token that a query at `position` sees at a layer.
  static std::int32_t first_seen(model_sequence const& s, std::int32_t l, std::int32_t position) {
    if (l % 2 == 0) return 0;
    std::int32_t t = 0;
    while (t < s.length() &&
           position - s.positions[static_cast<std::size_t>(t)] >= windowed::window)
      ++t;
    return t;
  }

  void let_go(model_sequence& s) const {
    for (auto& [which, tensor] : s.tensors) {
      auto const seen = first_seen(s, which.second, s.next_position() - rollback);
      for (std::int32_t b = 0; b < seen / model_block_size; ++b)
        tensor[static_cast<std::size_t>(b)].reset();
    }
  }

  /// Whether a sequence may be cut down: no block that would be seen again is gone.
  static bool may_truncate(model_sequence const& s, std::int32_t length) {
    if (length == 0) return true;
    model_sequence cut = s;
    cut.positions.resize(static_cast<std::size_t>(length));
    for (auto const& [which, tensor] : s.tensors) {
      auto const seen = first_seen(cut, which.second, cut.next_position());
      // The tokens from `seen` on, and where none is seen the block that the next one goes to.
      auto const block = static_cast<std::size_t>(seen / model_block_size);
      if (block < tensor.size() && tensor[block] == nullptr) return false;
    }
    return true;
  }
};

/// Storage and model side by side.
class storage_and_model {
 public:
  storage_and_model(std::uint32_t seed, std::int32_t blocks, std::int32_t rollback)
      : random_(seed), all_plans_(model_plans()), storage_(make(blocks, rollback)) {
    model_.rollback = rollback;
    num_blocks_ = blocks;
  }

  void operate() {
    switch (below(10)) {
      case 0:
        return open();
      case 1:
        return close();
      case 2:
        return fork();
      case 3:
        return truncate();
      case 4:
        return shrink();
      default:
        return step();
    }
  }

  /// Whether all blocks are accounted for, and what a random sequence reads.
  bool agrees() {
    if (storage_.free_k_blocks() != num_blocks_ - model_.held(true)) return false;
    if (storage_.free_v_blocks() != num_blocks_ - model_.held(false)) return false;
    bool const gaps = std::ranges::any_of(model_.sequences, [](auto const& entry) {
      auto const& s = entry.second;
      return s.next_position() != s.length();
    });
    if ((storage_.positions().data != nullptr) != gaps) return false;
    if (model_.sequences.empty()) return true;
    auto const chosen = std::next(model_.sequences.begin(), below(size(model_.sequences)));
    sequence_id const id{chosen->first};
    auto const& s = chosen->second;
    if (storage_.length(id) != s.length() || storage_.next_position(id) != s.next_position())
      return false;
    return positions_agree(id, s) && std::ranges::all_of(s.tensors, [&](auto const& tensor) {
             return tensor_agrees(id, tensor.first.first, {tensor.first.second}, tensor.second, s);
           });
  }

  std::map<char const*, std::int64_t> done;  // how often an operation came to pass, or was refused

 private:
  static modelled_storage make(std::int32_t blocks, std::int32_t rollback) {
    strata::paged_options options;
    options.max_sequences = most_model_sequences;
    options.max_tokens = most_model_tokens;
    options.block_size = model_block_size;
    options.k_blocks = options.v_blocks = blocks;
    options.max_rollback = rollback;
    return *modelled_storage::make(windowed::classes(), options);
  }

  template <class Container>
  static std::int32_t size(Container const& c) {
    return static_cast<std::int32_t>(c.size());
  }
  std::int32_t below(std::int32_t n) {
    return static_cast<std::int32_t>(random_() % static_cast<std::uint32_t>(n));
  }
  strata::route_plan const& any_plan() {
    return all_plans_[static_cast<std::size_t>(below(size(all_plans_)))];
  }
  /// An open sequence, or now and then one that is not.
  sequence_id any() { return {below(most_model_sequences + 1)}; }
  bool is_open(sequence_id id) const { return model_.sequences.contains(id.index); }

  void note(char const* what, bool as_expected) {
    if (!as_expected) FAIL_CHECK(what);
    ++done[what];
  }

  void open() {
    auto const& plan = any_plan();
    auto const id = storage_.open(plan);
    bool const room = size(model_.sequences) < most_model_sequences;
    if (!room) return note("open refused", id.state().code == errc::too_many_sequences);
    note("open", id.ok() && !is_open(*id));
    model_.open(*id, plan);
  }

  void close() {
    auto const id = any();
    auto const s = storage_.close(id);
    if (!is_open(id)) return note("unknown", s.code == errc::unknown_sequence);
    note("close", s.ok());
    model_.sequences.erase(id.index);
  }

  void fork() {
    auto const parent = any();
    auto const child = storage_.fork(parent);
    if (!is_open(parent)) return note("unknown", child.state().code == errc::unknown_sequence);
    if (size(model_.sequences) == most_model_sequences)
      return note("fork refused", child.state().code == errc::too_many_sequences);
    note("fork", child.ok() && !is_open(*child));
    model_.sequences[child->index] = model_sequence(model_.sequences[parent.index]);
  }

  void truncate() {
    auto const id = any();
    if (!is_open(id))
      return note("unknown", storage_.truncate(id, 0).code == errc::unknown_sequence);
    auto& s = model_.sequences[id.index];
    auto const length = below(4) == 0 ? below(most_model_tokens + 2) - 1 : s.length() - below(4);
    auto const outcome = storage_.truncate(id, length);
    if (length < 0 || length > s.length())
      return note("truncate refused", outcome.code == errc::bad_truncation);
    if (!paged_model::may_truncate(s, length))
      return note("window let go", outcome.code == errc::window_let_go);
    note("truncate", outcome.ok());
    s.positions.resize(static_cast<std::size_t>(length));
    for (auto& [which, tensor] : s.tensors)
      tensor.resize(static_cast<std::size_t>((length + model_block_size - 1) / model_block_size));
  }

  void shrink() {
    auto const id = any();
    auto const& plan = any_plan();
    auto const outcome = storage_.shrink(id, plan);
    if (!is_open(id)) return note("unknown", outcome.state().code == errc::unknown_sequence);
    auto& s = model_.sequences[id.index];
    for (bool const is_k : {true, false})
      for (std::int32_t l = 0; l < plan.num_layers; ++l)
        if (windowed::stores(plan, is_k, l) && !s.tensors.contains({is_k, l}))
          return note("shrink refused", outcome.state().code == errc::not_a_subset);
    std::int64_t const before[] = {model_.held(true), model_.held(false)};
    std::erase_if(s.tensors, [&](auto const& tensor) {
      return !windowed::stores(plan, tensor.first.first, tensor.first.second);
    });
    s.plan = plan;
    std::int64_t const block_bytes = 64;
    note("shrink", outcome.ok() && outcome->k == (before[0] - model_.held(true)) * block_bytes &&
                       outcome->v == (before[1] - model_.held(false)) * block_bytes);
  }

  /// A batch of up to three sequences; gaps in positions now and then.
  std::vector<strata::growth> any_growths() {
    std::vector<strata::growth> growths;
    for (auto const& [index, s] : model_.sequences) {
      if (below(2) == 0 || growths.size() == 3) continue;
      strata::growth g{{index}, below(3) == 0 ? below(9) : 1};
      if (below(12) == 0) g.first_position = s.next_position() + below(3);
      growths.push_back(g);
    }
    return growths;
  }

  /// Blocks that the model would take for growths.
  std::int64_t needed(std::vector<strata::growth> const& growths, bool is_k) {
    std::int64_t count = 0;
    std::map<model_block const*, std::int64_t> writers;
    for (auto const& g : growths) {
      auto const& s = model_.sequences[g.sequence.index];
      auto const now = s.length(), then = now + g.new_tokens;
      for (auto const& [which, tensor] : s.tensors) {
        if (which.first != is_k) continue;
        count += (then + model_block_size - 1) / model_block_size -
                 (now + model_block_size - 1) / model_block_size;
        bool const writes = g.new_tokens > 0 && now % model_block_size != 0;
        if (writes && ++writers[tensor.back().get()] < tensor.back().use_count()) ++count;
      }
    }
    return count;
  }

  void step() {
    auto const growths = any_growths();
    auto const outcome = storage_.reserve(growths);
    for (auto const& g : growths)
      if (model_.sequences[g.sequence.index].length() + g.new_tokens > most_model_tokens)
        return note("sequence full", outcome.code == errc::sequence_full);
    auto const k_missing = needed(growths, true) - (num_blocks_ - model_.held(true));
    auto const v_missing = needed(growths, false) - (num_blocks_ - model_.held(false));
    if (k_missing > 0 && k_missing >= v_missing)
      return note("no blocks", outcome.code == errc::out_of_k_blocks && outcome.value == k_missing);
    if (v_missing > 0)
      return note("no blocks", outcome.code == errc::out_of_v_blocks && outcome.value == v_missing);
    note("reserve", outcome.ok());
    if (below(6) == 0) {
      if (below(2) == 0)
        for (auto const& g : growths) scribble(g);
      storage_.abandon();
      return;
    }
    for (auto const& g : growths) write(g);
    storage_.commit();
    for (auto const& g : growths) model_.let_go(model_.sequences[g.sequence.index]);
  }

  /// Rows of a step that will not be committed.
  void scribble(strata::growth const& g) {
    auto const& s = model_.sequences[g.sequence.index];
    for (std::int32_t i = 0; i < g.new_tokens; ++i)
      for (auto const& [which, tensor] : s.tensors)
        *element(g.sequence, which.first, {which.second}, s.length() + i) = -1;
  }

  /// New tokens of a sequence, in both. Names are numbers that come once.
  void write(strata::growth const& g) {
    auto& s = model_.sequences[g.sequence.index];
    auto position =
        g.first_position == strata::continue_position ? s.next_position() : g.first_position;
    for (std::int32_t i = 0; i < g.new_tokens; ++i) {
      auto const token = s.length();
      for (auto& [which, tensor] : s.tensors) {
        name_ = name_ < 1e6F ? name_ + 1 : 1;
        paged_model::put(tensor, token, name_);
        *element(g.sequence, which.first, {which.second}, token) = name_;
      }
      s.positions.push_back(position++);
    }
  }

  float* element(sequence_id id, bool is_k, layer_id l, std::int32_t token) {
    auto const blocks = is_k ? storage_.k_blocks(l) : storage_.v_blocks(l);
    auto const row = is_k ? storage_.k_row(id, l) : storage_.v_row(id, l);
    return reinterpret_cast<float*>(blocks.at(row, 0, token));
  }

  bool tensor_agrees(sequence_id id, bool is_k, layer_id l, model_tensor const& tensor,
                     model_sequence const& s) {
    for (std::int32_t t = 0; t < s.length(); ++t) {
      auto const& block = tensor[static_cast<std::size_t>(t / model_block_size)];
      if (block == nullptr) continue;
      if (*element(id, is_k, l, t) != (*block)[static_cast<std::size_t>(t % model_block_size)])
        return false;
    }
    return true;
  }

  bool positions_agree(sequence_id id, model_sequence const& s) const {
    auto const table = storage_.positions();
    for (std::int32_t t = 0; t < s.length(); ++t) {
      auto const position = table.data == nullptr ? t : table.data[id.index * table.stride + t];
      if (position != s.positions[static_cast<std::size_t>(t)]) return false;
    }
    return true;
  }

  std::mt19937 random_;
  std::vector<strata::route_plan> all_plans_;
  modelled_storage storage_;
  paged_model model_;
  std::int64_t num_blocks_ = 0;
  float name_ = 0;
};

}  // namespace

TEST_CASE("an abandoned step of forks of unequal length leaves the tokens of all") {
  auto const plan = windowed::plan_of({0, 0, 0, 0, 0}, {0, 0, 0, 0, 0});
  auto storage = *modelled_storage::make(windowed::classes(), {2, most_model_tokens, 8, 10, 10});
  auto const token = [&](sequence_id id, std::int32_t t) {
    auto const blocks = storage.k_blocks({0});
    return reinterpret_cast<float*>(blocks.at(storage.k_row(id, {0}), 0, t));
  };
  auto const longer = *storage.open(plan);
  strata::growth const three{longer, 3};
  REQUIRE(storage.reserve({&three, 1}).ok());
  for (std::int32_t t = 0; t < 3; ++t) *token(longer, t) = static_cast<float>(t + 1);
  storage.commit();
  auto const shorter = *storage.fork(longer);
  REQUIRE(storage.truncate(shorter, 2).ok());
  for (bool const longer_first : {true, false}) {
    strata::growth step[] = {{longer, 1}, {shorter, 1}};
    if (!longer_first) std::swap(step[0], step[1]);
    REQUIRE(storage.reserve(step).ok());
    *token(longer, 3) = *token(shorter, 2) = -1;
    storage.abandon();
    for (std::int32_t t = 0; t < 3; ++t) CHECK(*token(longer, t) == static_cast<float>(t + 1));
    for (std::int32_t t = 0; t < 2; ++t) CHECK(*token(shorter, t) == static_cast<float>(t + 1));
  }
}

TEST_CASE("a paged storage does what its model does, a million operations long") {
  constexpr std::int32_t seeds = 8;
  std::int64_t const operations = 130'000 / support::case_step();  // a seed
  std::map<char const*, std::int64_t> done;
  for (std::uint32_t seed = 1; seed <= seeds; ++seed) {
    CAPTURE(seed);
    // Few blocks and many; no rollback, and some.
    storage_and_model both(seed, seed % 2 == 0 ? 40 : 160, seed % 3 == 0 ? 5 : 0);
    std::int64_t i = 0;
    for (bool good = true; good && i < operations; ++i) {
      both.operate();
      good = both.agrees();
    }
    REQUIRE(i == operations);
    for (auto const& [what, count] : both.done) done[what] += count;
  }
  // Each thing has happened, often.
  for (auto const* what : {"open", "open refused", "close", "unknown", "fork", "fork refused",
                           "truncate", "truncate refused", "window let go", "shrink",
                           "shrink refused", "reserve", "sequence full", "no blocks"}) {
    CAPTURE(what);
    CHECK(done[what] >= operations / 100);
  }
}
