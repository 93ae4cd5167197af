// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Reads the sections of a snapshot (cache/snapshot.hpp has the format), which may come from anybody:
// nothing is believed that was not checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <strata/cache/storage.hpp>
#include <strata/checksum.hpp>
#include <strata/config.hpp>
#include <strata/detail/byte_reader.hpp>
#include <strata/detail/snapshot_writer.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Takes one section after the other; errors name the byte of the file where the section begins.
class snapshot_reader {
 public:
  /// `verifies`: checksums, too; not of a file that has been read before.
  snapshot_reader(std::span<std::byte const> file, bool verifies) noexcept
      : file_(file), reader_(file), verifies_(verifies) {}

  /// The body of the next section, which must be of this kind and whole.
  result<byte_reader> next(snapshot_section wanted) noexcept {
    auto const start = offset();
    auto const whole = reader_.rest();
    auto const kind = reader_.number<std::uint32_t>();
    auto const zero = reader_.number<std::uint32_t>();
    auto const size = reader_.number<std::uint64_t>();
    if (!reader_.ok()) return status{errc::snapshot_truncated, no_layer, start, length()};
    if (kind != static_cast<std::uint32_t>(wanted) || zero != 0)
      return status{errc::snapshot_damaged, no_layer, start, kind};
    auto const body = reader_.bytes(size);
    auto const padding = reader_.bytes(-size & 7);
    if (!reader_.ok()) return status{errc::snapshot_truncated, no_layer, start, length()};
    auto const covered = whole.first(whole.size() - reader_.rest().size());
    auto const crc = reader_.number<std::uint32_t>();
    auto const last = reader_.number<std::uint32_t>();
    if (!reader_.ok()) return status{errc::snapshot_truncated, no_layer, start, length()};
    bool const padded =
        std::all_of(padding.begin(), padding.end(), [](auto b) { return b == std::byte{}; });
    if ((verifies_ && crc != crc32c(covered)) || last != 0 || !padded)
      return status{errc::snapshot_damaged, no_layer, start, kind};
    return byte_reader(body);
  }
  /// Refuses what comes after the last section.
  status finish() const noexcept {
    if (reader_.rest().empty()) return {};
    return {errc::snapshot_damaged, no_layer, offset(), 0};
  }
  std::int64_t offset() const noexcept {
    return length() - static_cast<std::int64_t>(reader_.rest().size());
  }

 private:
  std::int64_t length() const noexcept { return static_cast<std::int64_t>(file_.size()); }

  std::span<std::byte const> file_;
  byte_reader reader_;
  bool verifies_;
};

/// How many sequences there are, of a fingerprint that is this storage's.
template <class Storage>
result<std::uint32_t> read_fingerprint(snapshot_reader& sections, Storage const& storage,
                                       std::uint64_t model) noexcept {
  auto body = sections.next(snapshot_section::fingerprint);
  if (!body.ok()) return body.state();
  status outcome;
  std::uint32_t num_sequences = 0;
  for_fingerprint(storage, model, 0, [&](fingerprint_part part, layer_id l, auto expected) {
    if (!outcome.ok()) return;
    auto const found = body->bytes(expected.size());
    if (part == fingerprint_part::sequences) {
      if (body->ok()) std::memcpy(&num_sequences, found.data(), sizeof(num_sequences));
      return;
    }
    if (body->ok() && std::equal(found.begin(), found.end(), expected.begin())) return;
    std::uint32_t version = 0;
    if (part == fingerprint_part::version && body->ok())
      std::memcpy(&version, found.data(), sizeof(version));
    outcome = part == fingerprint_part::magic ? status{errc::snapshot_damaged, no_layer, 0, 1}
              : part == fingerprint_part::version
                  ? status{errc::snapshot_other_version, no_layer, version, snapshot_version}
                  : status{errc::snapshot_foreign, l, static_cast<std::int64_t>(part), 0};
  });
  if (!outcome.ok()) return outcome;
  if (!body->ok() || !body->rest().empty())
    return status{errc::snapshot_foreign, no_layer,
                  static_cast<std::int64_t>(fingerprint_part::scales), 0};
  return num_sequences;
}

/// One sequence of a file; its positions and first tokens lie there.
struct read_sequence {
  imported_sequence what;
  std::int32_t first_tokens[2 * max_layers] = {};
};

/// Reads a sequence; into the caller's memory, since its spans point there.
template <class Storage>
status read(snapshot_reader& sections, Storage const& storage, read_sequence& to) noexcept {
  auto const start = sections.offset();
  auto body = sections.next(snapshot_section::sequence);
  if (!body.ok()) return body.state();
  auto const layers = storage.classes().num_layers();
  to.what.length = body->number<std::int32_t>();
  auto const approximate = body->number<std::uint32_t>();
  std::int32_t k[max_layers] = {}, v[max_layers] = {};
  for (std::int32_t l = 0; l < layers; ++l) {
    k[l] = body->number<std::int32_t>();
    v[l] = body->number<std::int32_t>();
    to.first_tokens[l] = body->number<std::int32_t>();
    to.first_tokens[layers + l] = body->number<std::int32_t>();
  }
  status const damaged{errc::snapshot_damaged, no_layer, start,
                       static_cast<std::int64_t>(snapshot_section::sequence)};
  if (!body->ok() || to.what.length < 0 || approximate > 1) return damaged;
  if (approximate == 1 && to.what.length == 0) return damaged;  // no token is approximate
  auto const positions = body->bytes(4 * static_cast<std::uint64_t>(to.what.length));
  if (!body->ok() || !body->rest().empty()) return damaged;
  auto const count = static_cast<std::size_t>(layers);
  auto const k_map = table_map::make(std::span(k).first(count));
  auto const v_map = table_map::make(std::span(v).first(count));
  if (!k_map.ok()) return k_map.state();
  if (!v_map.ok()) return v_map.state();
  auto const plan = make_plan(*k_map, *v_map, storage.classes());
  if (!plan.ok()) return plan.state();
  // What a plan has no use for is as `save` writes it.
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto const& kind = storage.classes()[l];
    bool const own = kind.has_kv || (k[l.index] == l.index && v[l.index] == l.index);
    bool const k_first = (*plan)[l].k.stored || to.first_tokens[l.index] == 0;
    bool const v_first = (*plan)[l].v.stored || to.first_tokens[layers + l.index] == 0;
    if (!own || !k_first || !v_first) return damaged;
  }
  to.what.plan = *plan;
  to.what.approximate = approximate == 1;
  to.what.positions = {reinterpret_cast<std::int32_t const*>(positions.data()),
                       static_cast<std::size_t>(to.what.length)};
  to.what.first_tokens = std::span(to.first_tokens).first(2 * count);
  return {};
}

/// Whether the scales at the end of a tensor of a head-scaled codec are the storage's own.
template <class Storage>
bool same_scales(Storage const& storage, layer_id l, bool is_k,
                 std::span<std::byte const> tensor) noexcept {
  bool const scaled = is_k ? head_scaled_codec<typename Storage::k_codec>
                           : head_scaled_codec<typename Storage::v_codec>;
  if (!scaled || tensor.empty()) return true;
  auto const heads = static_cast<std::size_t>(storage.classes()[l].kv.kv_heads);
  auto const* const own = is_k ? storage.k_head_scales(l) : storage.v_head_scales(l);
  auto const scales = tensor.last(heads * sizeof(float));
  for (std::size_t h = 0; h < heads; ++h) {
    float scale = 0;
    std::memcpy(&scale, scales.data() + h * sizeof(float), sizeof(float));
    if (scale != (own == nullptr ? 1.0F : own[h])) return false;
  }
  return true;
}

/// The rows and scales of the next tensor, which must be this one.
template <class Storage>
result<std::span<std::byte const>> read_tensor(snapshot_reader& sections, Storage const& storage,
                                               imported_sequence const& of, layer_id l,
                                               bool is_k) noexcept {
  auto const start = sections.offset();
  auto body = sections.next(snapshot_section::tensor);
  if (!body.ok()) return body.state();
  auto const layer = body->number<std::int32_t>();
  auto const which = body->number<std::uint32_t>();
  auto const at = l.index + (is_k ? 0 : storage.classes().num_layers());
  auto const first = of.first_tokens[static_cast<std::size_t>(at)];
  auto const size = tensor_bytes(storage, l, is_k, of.length - first);
  if (!size.ok()) return size.state();
  bool const good = body->ok() && layer == l.index && which == (is_k ? 0U : 1U) &&
                    std::cmp_equal(body->rest().size(), *size);
  if (!good) return status{errc::snapshot_damaged, l, start, 3};
  if (!same_scales(storage, l, is_k, body->rest()))
    return status{errc::snapshot_foreign, l, static_cast<std::int64_t>(fingerprint_part::scales),
                  0};
  return body->rest();
}

}  // namespace detail

STRATA_NAMESPACE_END
