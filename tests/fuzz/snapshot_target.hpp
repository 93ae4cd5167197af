// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The reader of snapshots. A byte says what kind of storage takes the file up and under which plan, a
// byte what becomes of the sequences, the rest is the file (from 8 bytes on, that it may be aligned). A
// file that is refused changes nothing. One that is taken gives sequences which are saved to the same
// bytes, are read, grow by steps, fork, shrink and close, and leaves others as they were.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/executor.hpp>
#include <strata/stack.hpp>

#include "fuzz/fuzz.hpp"
#include "fuzz/snapshot_storage.hpp"

namespace fuzz::snapshot {

/// What became of a file: refused for its bytes, as of another storage, for plans that are none, for
/// tokens that no sequence has, for lack of room; taken and closed; taken and grown.
enum reach { damaged, foreign, no_plan, no_tokens, no_room, restored, grown, num_reaches };

inline reach refused_for(strata::status const& s) {
  using strata::errc;
  switch (s.code) {
    case errc::snapshot_damaged:
    case errc::snapshot_truncated:
      return damaged;
    case errc::snapshot_foreign:
    case errc::snapshot_other_version:
      return foreign;
    case errc::position_not_ahead:
    case errc::position_too_large:
    case errc::window_let_go:
    case errc::sequence_full:
      return no_tokens;
    case errc::out_of_k_blocks:
    case errc::out_of_v_blocks:
    case errc::too_many_sequences:
    case errc::value_too_large:
    case errc::not_a_subset:
      return no_room;
    default:
      return no_plan;
  }
}

/// Reads all that the sequences hold.
template <class S>
void check_sequences(S const& storage, std::vector<sequence_id> const& ids) {
  for (auto const id : ids) {
    require(storage.check_idle(id).ok(), "what is restored is open");
    auto const& plan = storage.plan(id);
    require(check(plan, storage.classes(), strata::use::serving).ok(), "its plan serves");
    std::int32_t next = 0;
    for (auto const position : storage.token_positions(id)) {
      require(position >= next, "positions ascend");
      next = position + 1;
    }
    require(storage.next_position(id) == next, "the next position is the one behind the last");
    static_cast<void>(contents(storage, id));
  }
}

/// Whether a sequence grows by a step, all layers of which are stored and read. Where it does not,
/// that is for lack of room, and nothing changes.
template <class Server>
bool grow_by_step(Server& server, sequence_id id, std::int32_t tokens, subject_memory& memory,
                  std::vector<sequence_id> const& open) {
  auto& storage = server.between_steps();
  auto const length = storage.length(id);
  auto const before = all_of(storage, open, memory);
  std::vector<float> const rows(64 * 4, .5F);
  std::vector<float> out(64 * 4);
  std::vector<std::byte> workspace;
  {
    auto step = server.begin(strata::batch_entry{id, tokens});
    if (!step.state().ok()) {
      auto const why = refused_for(step.state());
      require(why == no_room || why == no_tokens, "a step is refused for lack of room");
    } else {
      strata::serial_executor here;
      for (layer_id l{0}; l.index < storage.classes().num_layers(); ++l.index) {
        if (!storage.classes()[l].has_kv) continue;
        for (auto const& run : step.k_writers(l)) run.store_all(rows.data());
        for (auto const& run : step.v_writers(l)) run.store_all(rows.data());
        strata::layer_queries<float> const queries{
            .q = rows.data(), .out = out.data(), .q_heads = 2};
        workspace.resize(static_cast<std::size_t>(*step.workspace_bytes(l, queries, 1)));
        require(step.attend(here, l, queries, workspace).ok(), "a layer is read");
      }
      require(step.commit().ok(), "a step that was stored is committed");
      require(storage.length(id) == length + tokens, "and counts");
      return true;
    }
  }
  require(all_of(storage, open, memory) == before, "a step that is refused changes nothing");
  return false;
}

/// What whole sequences go through.
template <class S>
void pass_on(S& storage, sequence_id id, input& in) {
  if constexpr (requires { storage.fork(id); }) {
    auto const copy = storage.fork(id);
    if (!copy.ok()) return;
    require(contents(storage, *copy) == contents(storage, id), "a fork holds the same");
    auto const length = storage.length(id);
    static_cast<void>(storage.truncate(*copy, in.number<std::uint8_t>() % (length + 1)));
    static_cast<void>(storage.shrink(*copy, plan_number(in.number<std::uint8_t>())));
    check_sequences(storage, {*copy});
    require(storage.close(*copy).ok(), "a fork closes");
  }
}

template <class S>
reach use_sequences(subject<S>& to, std::vector<sequence_id> const& ids, std::uint8_t fate) {
  auto open = to.before;
  open.insert(open.end(), ids.begin(), ids.end());
  strata::stack server(std::move(to.storage), strata::reference_attention{});
  auto& storage = server.between_steps();
  input in(std::as_bytes(std::span(&fate, 1)));
  bool any = false;
  for (auto const id : ids) any |= grow_by_step(server, id, 1 + fate % 3, to.memory, open);
  check_sequences(storage, ids);
  for (auto const id : ids) pass_on(storage, id, in);
  for (auto const id : ids) require(storage.close(id).ok(), "what is restored closes");
  to.storage = std::move(storage);
  return any ? grown : restored;
}

template <class S>
reach restore_into(bytes file, setting const& how, std::uint8_t fate) {
  subject<S> to(how);
  auto const kept = to.saved_before();
  auto const before = all_of(to.storage, to.before, to.memory);
  constexpr sequence_id untouched{77};
  std::vector<sequence_id> ids(4, untouched);
  auto const count = how.under < 0 ? strata::restore(to.storage, file, options, ids)
                                   : strata::restore_subset(to.storage, file, options,
                                                            plan_number(how.under), ids);
  if (!count.ok()) {
    require(all_of(to.storage, to.before, to.memory) == before, "a refusal changes nothing");
    require(std::ranges::count(ids, untouched) == 4, "nor the caller's list");
    return refused_for(count.state());
  }
  require(*count >= 0 && *count <= 4, "no more sequences than there is room for");
  ids.resize(static_cast<std::size_t>(*count));
  check_sequences(to.storage, ids);
  auto const again = saved(to.storage, ids);
  require(how.under >= 0 || std::ranges::equal(again, file), "what is saved again is the file");
  subject<S> other({how.type, how.block_size, -1, false, false});
  std::vector<sequence_id> others(ids.size());
  require(strata::restore(other.storage, again, options, others).ok(), "and is taken again");
  require(saved(other.storage, others) == again, "as the same");
  auto const came = use_sequences(to, ids, fate);
  require(to.saved_before() == kept, "other sequences are as they were");
  require(books_of(to.storage, to.before) == before.books, "and all blocks are free again");
  return came;
}

inline int one_input(bytes data) {
  input in(data);
  auto const how = setting::of(in.number<std::uint8_t>());
  auto const fate = in.number<std::uint8_t>();
  // Aligned, and of exactly as many bytes, so that a read beyond is seen.
  auto const rest = in.rest().size() < 6 ? bytes{} : in.rest().subspan(6);
  std::vector<std::byte> const file(rest.begin(), rest.end());
  if (how.type == 0) return restore_into<paged>(file, how, fate);
  if (how.type == 1) return restore_into<contiguous>(file, how, fate);
  return restore_into<head_scaled>(file, how, fate);
}

}  // namespace fuzz::snapshot
