// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Memory that cannot be had. Whoever allocates is failed at each allocation in turn: the call is
// refused, everything is as it was, nothing is kept, and the same call succeeds afterwards. Whatever
// happens to sequences in use allocates nothing at all, so that nothing of it can fail that way.
#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <string_view>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/pressure.hpp>
#include <strata/map/engine_forms.hpp>
#include <strata/map/planner.hpp>
#include <strata/map/strategy.hpp>
#include <strata/stack.hpp>

#include "support/print.hpp"
#include "support/saved_sequences.hpp"

using namespace support::snapshots;
using strata::errc;
using strata::layer_id;
using strata::sequence_id;

namespace {

std::atomic<std::int64_t> live{0};   // allocations that were not given back
std::atomic<std::int64_t> turn{-1};  // how many more succeed before one fails; below 0: none fails

bool fails() noexcept { return turn.load() >= 0 && turn.fetch_sub(1) == 0; }

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (fails()) return nullptr;
  ++live;
  return std::aligned_alloc(alignment, (size + alignment) / alignment * alignment);
}
void* or_throw(void* memory) { return memory == nullptr ? throw std::bad_alloc() : memory; }
void give_back(void* memory) noexcept {
  live -= memory != nullptr;
  std::free(memory);
}

}  // namespace

// All forms: memory of one that was left as it is would meet a delete that is not its own.
void* operator new(std::size_t size) { return or_throw(allocate(size, 16)); }
void* operator new(std::size_t size, std::align_val_t to) {
  return or_throw(allocate(size, static_cast<std::size_t>(to)));
}
void* operator new(std::size_t size, std::nothrow_t const&) noexcept { return allocate(size, 16); }
void* operator new(std::size_t size, std::align_val_t to, std::nothrow_t const&) noexcept {
  return allocate(size, static_cast<std::size_t>(to));
}
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::nothrow_t const&) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t, std::nothrow_t const&) noexcept {
  give_back(memory);
}

namespace {

/// Calls with the allocation number `nth` failing. Whether there was one.
template <class Call>
bool failed_at(std::int64_t nth, Call const& call) {
  turn = nth;
  call();
  return turn.exchange(-1) < 0;
}

/// Calls attempt(n) for n = 0, 1, ... until it says that there was no such allocation. How many there
/// are.
template <class Attempt>
std::int64_t fail_each(Attempt const& attempt) {
  std::int64_t n = 0;
  while (n < 1000 && attempt(n)) ++n;
  return n;
}

/// The same for what is made from nothing: make() -> result.
template <class Make>
std::int64_t fail_each_of(Make const& make) {
  return fail_each([&](std::int64_t n) {
    auto const before = live.load();
    strata::status outcome;
    bool const failed = failed_at(n, [&] { outcome = make().state(); });
    CHECK(outcome.code == (failed ? errc::out_of_memory : errc::ok));
    CHECK(live == before);  // what was made is gone again, too
    return failed;
  });
}

void allocates_nothing(char const* what, auto const& call) {
  CAPTURE(what);
  strata::status outcome;
  bool const failed = failed_at(0, [&] { outcome = call(); });
  CHECK(!failed);
  CHECK(outcome == strata::status{});
}

using paged = strata::paged_storage<strata::fp8_codec, strata::bf16_codec>;
using contiguous = strata::contiguous_storage<strata::bf16_codec, strata::int8_codec>;

/// A server of three sequences: one, a fork of it with which it shares a block that is partly filled,
/// and one of fewer leaders. `used`: it has made a step of one sequence before.
template <class S>
struct served {
  static constexpr support::storage_room room{.max_sequences = 4, .max_tokens = 30};

  support::guarded_memory memory = support::memory_for<S>(classes(), room);
  strata::stack<S, strata::reference_attention> server;
  std::vector<sequence_id> ids;

  explicit served(bool used) : server(filled(memory.borrow())) {
    ids = {{0}, {1}, {2}};
    if (used) CHECK(grow_by({strata::batch_entry{ids[2], 1}}).ok());
  }
  static S filled(strata::borrowed_memory lent) {
    auto storage = support::make_storage<S>(classes(), room, lent, scales_of<S>());
    auto const first = *storage.open(full());
    grow(storage, first, 6);
    if constexpr (support::is_paged<S>)
      REQUIRE(storage.fork(first).ok());
    else
      grow(storage, *storage.open(full()), 2);
    grow(storage, *storage.open(full()), 3);
    return storage;
  }

  /// What counts: not the bytes of free blocks, to which a step may have copied.
  support::storage_state state() {
    auto& storage = server.between_steps();
    auto state = state_of(storage, ids, memory);
    state.k.clear(), state.v.clear();
    for (auto const id : ids) {
      auto const held = contents(storage, id);
      state.k.insert(state.k.end(), held.begin(), held.end());
    }
    return state;
  }

  strata::status grow_by(std::vector<strata::batch_entry> const& batch) {
    std::vector<float> const rows(8 * 2 * 33, 0.25F);
    auto step = server.begin(batch);
    if (!step.state().ok()) return step.state();
    for (layer_id l{0}; l.index < saved_layers; ++l.index) {
      if (!classes()[l].has_kv) continue;
      for (auto const& run : step.k_writers(l)) run.store_all(rows.data());
      for (auto const& run : step.v_writers(l)) run.store_all(rows.data());
    }
    return step.commit();
  }
  std::vector<strata::batch_entry> batch() const { return {{ids[0], 3}, {ids[1], 1}, {ids[2], 2}}; }
};

}  // namespace

TEST_CASE_TEMPLATE("every allocation failed once: a storage is refused and leaves nothing", S,
                   paged, contiguous) {
  CHECK(fail_each_of([] {
          return S::make(classes(), support::options_of<S>({.max_sequences = 4}), {},
                         scales_of<S>());
        }) >= 17);
}

TEST_CASE("every allocation failed once: a prefix index is refused and its storage is as it was") {
  served<paged> s(true);
  auto const before = s.state();
  using index_type = strata::prefix_index<paged>;
  auto const make = [&] { return index_type::make(s.server.storage(), {8, 2}); };
  CHECK(fail_each_of(make) == 6);
  CHECK(s.state() == before);
  auto index = *make();
  std::vector<std::int32_t> const tokens(6, 1);
  CHECK(*index.insert(s.server.between_steps(), s.ids[0], tokens, {}) == 1);
}

TEST_CASE_TEMPLATE(
    "every allocation failed once: a step is refused and its sequences are as before", S, paged,
    contiguous) {
  for (bool const used : {false, true}) {
    served<S> expected(used);
    REQUIRE(expected.grow_by(expected.batch()).ok());
    auto const after = expected.state();
    auto const count = fail_each([&](std::int64_t n) {
      served<S> s(used);
      auto const before = s.state();
      auto const batch = s.batch();
      bool failed = false;
      {
        turn = n;
        auto const step = s.server.begin(std::span(batch));
        failed = turn.exchange(-1) < 0;
        CHECK(step.state().code == (failed ? errc::out_of_memory : errc::ok));
        if (failed) CHECK(s.state() == before);  // while the refused step is still there
      }
      CHECK(s.state() == before);  // one that was begun and not committed never was, either
      CHECK(s.grow_by(batch).ok());
      CHECK(s.state() == after);
      return failed;
    });
    CHECK(count > 15);
  }
}

TEST_CASE("every allocation failed once: a planner gives the same choice afterwards") {
  auto const classes = strata::kv_classes::uniform(12);
  std::vector<std::int64_t> const bytes(12, 100);
  strata::planner_goals const goals{.budget = 450, .width = 64};
  auto const choose = [&] { return strata::choose_leaders(classes, bytes, goals); };
  auto const expected = choose();
  CHECK(fail_each_of(choose) == 2);
  CHECK(choose()->map == expected->map);
  auto const score = [](strata::leader_choice const& c) { return c.distance; };
  CHECK(fail_each_of([&] { return strata::choose_leaders(classes, bytes, goals, score); }) == 2);
}

TEST_CASE("what happens to sequences allocates nothing") {
  served<paged> s(true);
  REQUIRE(s.grow_by(s.batch()).ok());
  auto& storage = s.server.between_steps();
  auto const batch = s.batch();
  auto const plan = full(), fewer = shared();
  allocates_nothing("a step like one before", [&] {
    auto step = s.server.begin(std::span(batch));
    return step.state();
  });
  sequence_id copy;
  allocates_nothing("fork", [&] {
    auto const made = storage.fork(s.ids[0]);
    if (made.ok()) copy = *made;
    return made.state();
  });
  allocates_nothing("truncate", [&] { return storage.truncate(copy, 5); });
  allocates_nothing("shrink", [&] { return storage.shrink(copy, fewer).state(); });
  allocates_nothing("close", [&] { return storage.close(copy); });
  std::vector<std::int32_t> const tokens(9, 1);
  auto index = *strata::prefix_index<paged>::make(storage, {8, 2});
  allocates_nothing("prefix_index: insert, find, open, evict, clear", [&] {
    auto const learnt = index.insert(storage, s.ids[0], tokens, {});
    auto const found = index.find(tokens, plan, {});
    auto const opened = index.open(storage, plan, found);
    if (!learnt.ok() || !opened.ok() || found.num_tokens == 0)
      return strata::status{errc::unsupported};
    index.evict(storage, 1, 1);
    index.clear(storage);
    return storage.close(*opened);
  });
  std::vector<strata::route_plan> const ladder = {plan, fewer};
  allocates_nothing("relieve", [&] {
    auto const ids = std::span(s.ids).last(1);
    return strata::relieve(storage, ladder, ids, {1, 1}, strata::shrink_longest{}).state();
  });
}

TEST_CASE("snapshots and imports allocate nothing") {
  auto from = make<paged>();
  std::vector<sequence_id> const ids = {*from.open(full()), *from.open(full())};
  for (auto const id : ids) grow(from, id, 9);
  std::vector<std::byte> file(static_cast<std::size_t>(*strata::snapshot_bytes(from, ids)));
  allocates_nothing("save", [&] {
    strata::memory_sink sink(file);
    return strata::save(from, ids, {42}, sink);
  });
  auto to = make<paged>();
  std::vector<sequence_id> got(2);
  allocates_nothing("restore", [&] { return strata::restore(to, file, {42}, got).state(); });
  for (auto const id : got) REQUIRE(to.close(id).ok());
  auto const fewer = shared();
  allocates_nothing("restore_subset",
                    [&] { return strata::restore_subset(to, file, {42}, fewer, got).state(); });
  strata::imported_sequence const from_elsewhere{full(), 7, {}, {}, false};
  allocates_nothing("import_sequence", [&] {
    auto const id = to.import_sequence(from_elsewhere);
    if (!id.ok()) return id.state();
    return to.import_bytes(*id, {0}, strata::tensor::v, 0, 7, [](std::span<std::byte> bytes) {
      for (auto& b : bytes) b = {};
    });
  });
}

TEST_CASE("maps, their strings and engines' forms allocate nothing") {
  auto const model = classes();
  std::int32_t numbers[saved_layers] = {};
  char text[64] = {};
  allocates_nothing("strategies and forms", [&]() -> strata::status {
    namespace forms = strata::forms;
    auto const map = strata::parse_strategy("full", model);
    if (!map.ok()) return map.state();
    if (auto const s = forms::to_reuse_index(*map, model, numbers); !s.ok()) return s;
    if (auto const m = forms::from_reuse_index(numbers, model); !m.ok()) return m.state();
    auto const size = forms::to_layer_string(*map, model, text);
    if (!size.ok()) return size.state();
    std::string_view const written(text, static_cast<std::size_t>(*size));
    if (auto const m = forms::from_layer_string(written, model); !m.ok()) return m.state();
    if (auto const n = forms::to_shared_tail(*map, model); !n.ok()) return n.state();
    if (auto const n = forms::to_share_factor(*map, model); !n.ok()) return n.state();
    if (auto const n = forms::to_source_layers(*map, model, numbers); !n.ok()) return n.state();
    return make_plan(*map, model).state();
  });
}
