// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences written down, to be taken up again: after a restart, on another machine, or later in
// place of others. snapshot_file.hpp does it with files; host_tier.hpp moves them to host memory and
// back, without checksums.
//
//     snapshot_options const options{.model = hash_of_weights};
//     std::vector<std::byte> bytes(*snapshot_bytes(storage, ids));
//     memory_sink sink{bytes};
//     if (auto const s = save(storage, ids, options, sink); !s.ok()) return s;
//     ...
//     auto const count = restore(storage, bytes, options, ids);  // all of them, or nothing happened
//
// The format, version 1, of little-endian numbers; every section ends with the CRC-32C of its head
// and body, padded to 8 bytes:
//
//   section          {u32 kind, u32 0, u64 bytes of the body} body {u32 crc, u32 0}
//   1 fingerprint    "strataKV", u32 version, u32 sequences, u64 model, names of the codecs of K and
//                    V (16 bytes each), u32 layers, of each layer: i32 kv_heads, k_dim, v_dim,
//                    window, capture, RoPE dims, u32 interleaved (+ 2 where frequencies are not 0),
//                    f64 theta, f64 scaling, u64 frequencies where they are not 0, u32 has_kv; head
//                    scales of K and V (u32 count, f32 ...)
//   2 sequence       i32 length, u32 approximate, of each layer i32 source of K, source of V, first
//                    token of K, first token of V that is there; i32 positions [length]
//   3 tensor         i32 layer, u32 which (0: K, 1: V); rows [tokens, kv_heads, row_bytes], scales
//                    [tokens, kv_heads, scale_bytes] or, of head-scaled codecs, [kv_heads, scale_bytes]
//
// The tensors of a sequence follow it, layer by layer, K before V. How long blocks are is no part of
// it.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <strata/cache/codec.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/snapshot_reader.hpp>
#include <strata/detail/snapshot_writer.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

struct snapshot_options {
  std::uint64_t model = 0;  ///< of the weights that made K and V, an engine's own number: compared
};

/// Where a snapshot is written to, piece by piece.
template <class S>
concept snapshot_sink = requires(S& sink, std::span<std::byte const> bytes) {
  { sink.write(bytes) } noexcept -> std::same_as<status>;
};

/// Memory of the caller's. Threads: one at a time.
class memory_sink {
 public:
  explicit memory_sink(std::span<std::byte> memory) noexcept : rest_(memory) {}
  status write(std::span<std::byte const> bytes) noexcept {
    if (bytes.size() > rest_.size())
      return {errc::memory_too_small, no_layer, static_cast<std::int64_t>(rest_.size()),
              static_cast<std::int64_t>(bytes.size())};
    if (!bytes.empty()) std::memcpy(rest_.data(), bytes.data(), bytes.size());
    rest_ = rest_.subspan(bytes.size());
    return {};
  }

 private:
  std::span<std::byte> rest_;
};

/// Writes sequences down: their plans, positions, K and V. Changes nothing. Refuses sequences that
/// are not open, and steps in progress, before anything is written; then only what the sink does.
/// Threads: as a const call of the storage, several at the same time, each with a sink of its own.
template <class Storage, snapshot_sink Sink>
status save(Storage const& storage, std::span<sequence_id const> ids,
            snapshot_options const& options, Sink& sink) noexcept {
  static_assert(
      !on_device<Storage>,
      "strata: K and V of a device are not the host's to read: copy what for_bytes names");
  for (auto const id : ids)
    if (auto const s = storage.check_idle(id); !s.ok()) return s;
  detail::snapshot_writer<Sink> writer(sink);
  detail::write_fingerprint(writer, storage, options.model, static_cast<std::uint32_t>(ids.size()));
  for (auto const id : ids) {
    detail::write_sequence(writer, storage, id);
    auto const& plan = storage.plan(id);
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
      for (auto const is_k : detail::both_sides) {
        if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
        auto const s = detail::write_tensor(writer, storage, id, l, is_k);
        if (!s.ok()) return s;
      }
  }
  return writer.state();
}

/// Bytes that `save` writes.
template <class Storage>
result<std::int64_t> snapshot_bytes(Storage const& storage,
                                    std::span<sequence_id const> ids) noexcept {
  detail::counting_sink sink;
  if (auto const s = save(storage, ids, {}, sink); !s.ok()) return s;
  return sink.size;
}

namespace detail {

/// Calls tensor(sequence's number, layer, is_k, first token, bytes) for all tensors of a file, after
/// sequence(number, what). Stops at what is refused, by the file or by a call.
template <class Storage, class Sequence, class Tensor>
status walk_snapshot(Storage const& storage, std::span<std::byte const> file,
                     snapshot_options const& options, bool verifies, Sequence const& sequence,
                     Tensor const& tensor) noexcept {
  snapshot_reader sections(file, verifies);
  auto const count = read_fingerprint(sections, storage, options.model);
  if (!count.ok()) return count.state();
  read_sequence next;
  for (std::uint32_t i = 0; i < *count; ++i) {
    if (auto const s = read(sections, storage, next); !s.ok()) return s;
    if (auto const s = sequence(i, next.what); !s.ok()) return s;
    auto const& plan = next.what.plan;
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
      for (auto const is_k : detail::both_sides) {
        if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
        auto const bytes = read_tensor(sections, storage, next.what, l, is_k);
        if (!bytes.ok()) return bytes.state();
        auto const at = l.index + (is_k ? 0 : plan.num_layers);
        auto const first = next.what.first_tokens[static_cast<std::size_t>(at)];
        if (auto const s = tensor(i, l, is_k, first, *bytes); !s.ok()) return s;
      }
  }
  return sections.finish();
}

/// Fills a layer's K (or V) of a sequence that was imported.
template <class Storage>
status fill_tensor(Storage& storage, sequence_id id, layer_id l, bool is_k, std::int32_t first,
                   std::span<std::byte const> bytes) noexcept {
  auto const length = storage.length(id);
  auto const copy = [&](std::span<std::byte> to) {
    std::memcpy(to.data(), bytes.data(), to.size());
    bytes = bytes.subspan(to.size());
  };
  auto const rows = storage.import_bytes(id, l, is_k ? tensor::k : tensor::v, first, length, copy);
  if (!rows.ok()) return rows;
  bool const once = is_k ? head_scaled_codec<typename Storage::k_codec>
                         : head_scaled_codec<typename Storage::v_codec>;
  auto const scales = bytes;
  return storage.import_bytes(id, l, is_k ? tensor::k_scales : tensor::v_scales, first, length,
                              [&](std::span<std::byte> to) {
                                if (once) bytes = scales;
                                copy(to);
                              });
}

/// `under`: the plan of all sequences, instead of their own.
template <class Storage>
result<std::int32_t> restore_as(Storage& storage, std::span<std::byte const> file,
                                snapshot_options const& options, std::span<sequence_id> ids,
                                route_plan const* under) noexcept {
  auto const off = reinterpret_cast<std::uintptr_t>(file.data()) % 8;
  if (off != 0) return status{errc::memory_misaligned, no_layer, static_cast<std::int64_t>(off), 8};
  auto const planned = [&](imported_sequence s) {
    if (under == nullptr) return s;
    s.approximate = s.approximate || !(s.plan == *under);
    s.plan = *under;
    return s;
  };
  std::int64_t k = 0, v = 0, count = 0;
  auto const checked = walk_snapshot(
      storage, file, options, true,
      [&](std::uint32_t, imported_sequence const& s) -> status {
        for (layer_id l{0}; under != nullptr && s.plan.num_layers > l.index; ++l.index)
          if (((*under)[l].k.stored && !s.plan[l].k.stored) ||
              ((*under)[l].v.stored && !s.plan[l].v.stored))
            return {errc::not_a_subset, l};
        auto const needs = storage.import_needs(planned(s));
        if (!needs.ok()) return needs.state();
        k += needs->k;
        v += needs->v;
        ++count;
        return {};
      },
      [](std::uint32_t, layer_id, bool, std::int32_t, std::span<std::byte const>) {
        return status{};
      });
  if (!checked.ok()) return checked;
  auto const room = static_cast<std::int64_t>(ids.size());
  if (count > room) return status{errc::value_too_large, no_layer, count, room};
  if (auto const s = storage.check_room(count, k, v); !s.ok()) return s;
  auto const filled = walk_snapshot(
      storage, file, options, false,
      [&](std::uint32_t i, imported_sequence const& s) {
        auto const id = storage.import_sequence(planned(s));
        if (id.ok()) ids[i] = *id;
        return id.state();
      },
      [&](std::uint32_t i, layer_id l, bool is_k, std::int32_t first,
          std::span<std::byte const> bytes) -> status {
        auto const& plan = storage.plan(ids[i]);
        if (!(is_k ? plan[l].k : plan[l].v).stored) return {};
        return fill_tensor(storage, ids[i], l, is_k, first, bytes);
      });
  STRATA_ASSERT(filled.ok());
  if (!filled.ok()) return filled;
  return static_cast<std::int32_t>(count);
}

}  // namespace detail

/// Opens all sequences of a snapshot, in its order, and says how many they are: their ids go to
/// `ids`, which has room for them. The whole file is checked before anything changes: damage,
/// another model, codec or kind of layer, plans that are none, and too little room are refused.
/// `file`: 8-byte aligned, for instance mapped. Threads: alone with its storage; others may read the
/// file at the same time.
template <class Storage>
result<std::int32_t> restore(Storage& storage, std::span<std::byte const> file,
                             snapshot_options const& options, std::span<sequence_id> ids) noexcept {
  return detail::restore_as(storage, file, options, ids, nullptr);
}

/// The same under a plan whose leaders are among those of every sequence; layers that it does not
/// store are left out. *Approximate*, as `shrink` is (law 12 of strata.hpp).
template <class Storage>
result<std::int32_t> restore_subset(Storage& storage, std::span<std::byte const> file,
                                    snapshot_options const& options, route_plan const& plan,
                                    std::span<sequence_id> ids) noexcept {
  return detail::restore_as(storage, file, options, ids, &plan);
}

STRATA_NAMESPACE_END
