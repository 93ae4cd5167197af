// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Writes the sections of a snapshot (cache/snapshot.hpp has the format).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>

#include <strata/cache/codec.hpp>
#include <strata/cache/storage.hpp>
#include <strata/checksum.hpp>
#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

static_assert(std::endian::native == std::endian::little,
              "strata: snapshots keep K and V as they lie in memory, and numbers little-endian");

enum class snapshot_section : std::uint32_t { fingerprint = 1, sequence = 2, tensor = 3 };

/// K, then V. (nvcc 13 takes no list in a loop of a template.)
inline constexpr bool both_sides[] = {true, false};

/// What parts a fingerprint has, for who compares them.
enum class fingerprint_part { magic, version, sequences, model, codec, layers, layer, scales };

inline constexpr std::string_view snapshot_magic = "strataKV";
inline constexpr std::uint32_t snapshot_version = 1;

/// Counts what would be written.
struct counting_sink {
  std::int64_t size = 0;
  status write(std::span<std::byte const> bytes) noexcept {
    size += static_cast<std::int64_t>(bytes.size());
    return {};
  }
};

/// The first error of the sink stays; what comes after is not written.
template <class Sink>
class snapshot_writer {
 public:
  explicit snapshot_writer(Sink& sink) noexcept : sink_(sink) {}

  status const& state() const noexcept { return state_; }

  /// `size`: bytes of the body to come.
  void begin(snapshot_section kind, std::int64_t size) noexcept {
    crc_ = 0;
    body_ = 0;
    number(static_cast<std::uint32_t>(kind));
    number(std::uint32_t{0});
    number(static_cast<std::uint64_t>(size));
    body_ = 0;
  }
  void end() noexcept {
    constexpr std::byte zeros[8] = {};
    bytes(std::span(zeros).first(static_cast<std::size_t>(-body_ & 7)));
    auto const crc = crc_;
    number(crc);
    number(std::uint32_t{0});
  }

  template <class T>
  void number(T value) noexcept {
    static_assert(std::is_arithmetic_v<T>);
    bytes(std::as_bytes(std::span(&value, 1)));
  }
  void bytes(std::span<std::byte const> data) noexcept {
    if (!state_.ok() || data.empty()) return;
    if constexpr (!std::is_same_v<Sink, counting_sink>) crc_ = crc32c(data, crc_);
    body_ += static_cast<std::int64_t>(data.size());
    state_ = sink_.write(data);
  }

 private:
  Sink& sink_;
  status state_;
  std::uint32_t crc_ = 0;
  std::int64_t body_ = 0;
};

/// A codec's name in 16 bytes.
template <named_codec Codec>
struct codec_tag {
  static_assert(std::string_view(Codec::name).size() <= 16,
                "strata: a codec's name has at most 16 characters");
  char text[16] = {};
  constexpr codec_tag() noexcept {
    std::string_view const name = Codec::name;
    for (std::size_t i = 0; i < name.size(); ++i) text[i] = name[i];
  }
  std::span<std::byte const> bytes() const noexcept { return std::as_bytes(std::span(text)); }
};

/// Calls out(part, layer, bytes) for all that a snapshot must have in common with the storage that
/// takes it up, in the order of the format; both who writes and who compares go through here.
template <class Storage, class Out>
void for_fingerprint(Storage const& storage, std::uint64_t model, std::uint32_t num_sequences,
                     Out const& out) noexcept {
  auto const number = [&](fingerprint_part part, layer_id l, auto value) {
    out(part, l, std::as_bytes(std::span(&value, 1)));
  };
  out(fingerprint_part::magic, no_layer, std::as_bytes(std::span(snapshot_magic)));
  number(fingerprint_part::version, no_layer, snapshot_version);
  number(fingerprint_part::sequences, no_layer, num_sequences);
  number(fingerprint_part::model, no_layer, model);
  out(fingerprint_part::codec, no_layer, codec_tag<typename Storage::k_codec>().bytes());
  out(fingerprint_part::codec, no_layer, codec_tag<typename Storage::v_codec>().bytes());
  auto const& classes = storage.classes();
  number(fingerprint_part::layers, no_layer, static_cast<std::uint32_t>(classes.num_layers()));
  for (layer_id l{0}; classes.num_layers() > l.index; ++l.index) {
    auto const& kind = classes[l];
    auto const& kv = kind.kv;
    std::int32_t const values[] = {
        kv.kv_heads, kv.k_dim, kv.v_dim, kind.window, static_cast<std::int32_t>(kv.capture),
        kv.rope.dims};
    for (auto const value : values) number(fingerprint_part::layer, l, value);
    bool const more = kv.rope.frequencies != 0;
    number(fingerprint_part::layer, l, std::uint32_t{kv.rope.interleaved} + (more ? 2U : 0U));
    number(fingerprint_part::layer, l, kv.rope.theta);
    number(fingerprint_part::layer, l, kv.rope.scaling);
    if (more) number(fingerprint_part::layer, l, kv.rope.frequencies);
    number(fingerprint_part::layer, l, std::uint32_t{kind.has_kv});
  }
  auto const tables = storage.tables();
  std::span<float const> const both[] = {tables.k_scales, tables.v_scales};
  for (auto const scales : both) {
    number(fingerprint_part::scales, no_layer, static_cast<std::uint32_t>(scales.size()));
    out(fingerprint_part::scales, no_layer, std::as_bytes(scales));
  }
}

/// Bytes of the rows and scales of tokens of a layer's K (or V). Refuses what exceeds 64 bits.
template <kv_codec Codec>
constexpr result<std::int64_t> tensor_bytes(std::int32_t tokens, std::int32_t kv_heads,
                                            std::int32_t dim) noexcept {
  auto const scales = Codec::scale_bytes(dim) * kv_heads;
  auto const per_token = Codec::row_bytes(dim) * kv_heads + (head_scaled_codec<Codec> ? 0 : scales);
  auto const rows = checked_multiply(per_token, tokens);
  if (!rows.ok()) return rows;
  bool const once = head_scaled_codec<Codec> && tokens > 0;
  if (*rows > (std::numeric_limits<std::int64_t>::max)() - scales)
    return status{errc::size_overflow, no_layer, *rows, 1};
  return *rows + (once ? scales : 0);
}
template <class Storage>
result<std::int64_t> tensor_bytes(Storage const& storage, layer_id l, bool is_k,
                                  std::int32_t tokens) noexcept {
  auto const& kv = storage.classes()[l].kv;
  return is_k ? tensor_bytes<typename Storage::k_codec>(tokens, kv.kv_heads, kv.k_dim)
              : tensor_bytes<typename Storage::v_codec>(tokens, kv.kv_heads, kv.v_dim);
}

template <class Storage, class Sink>
void write_fingerprint(snapshot_writer<Sink>& writer, Storage const& storage, std::uint64_t model,
                       std::uint32_t num_sequences) noexcept {
  std::int64_t size = 0;
  for_fingerprint(storage, model, num_sequences,
                  [&](auto, auto, auto bytes) { size += static_cast<std::int64_t>(bytes.size()); });
  writer.begin(snapshot_section::fingerprint, size);
  for_fingerprint(storage, model, num_sequences,
                  [&](auto, auto, auto bytes) { writer.bytes(bytes); });
  writer.end();
}

template <class Storage, class Sink>
void write_sequence(snapshot_writer<Sink>& writer, Storage const& storage,
                    sequence_id id) noexcept {
  auto const& plan = storage.plan(id);
  auto const length = storage.length(id);
  writer.begin(snapshot_section::sequence,
               8 + 16 * std::int64_t{plan.num_layers} + 4 * std::int64_t{length});
  writer.number(length);
  writer.number(std::uint32_t{storage.approximate(id)});
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    // A layer without K/V reads nothing: of a table it would be its own source.
    bool const has_kv = storage.classes()[l].has_kv;
    writer.number(has_kv ? plan[l].k.source.index : l.index);
    writer.number(has_kv ? plan[l].v.source.index : l.index);
    writer.number(plan[l].k.stored ? storage.first_token(id, l, tensor::k) : 0);
    writer.number(plan[l].v.stored ? storage.first_token(id, l, tensor::v) : 0);
  }
  writer.bytes(std::as_bytes(storage.token_positions(id)));
  writer.end();
}

/// A tensor that the sequence stores.
template <class Storage, class Sink>
status write_tensor(snapshot_writer<Sink>& writer, Storage const& storage, sequence_id id,
                    layer_id l, bool is_k) noexcept {
  auto const which = is_k ? tensor::k : tensor::v,
             scales = is_k ? tensor::k_scales : tensor::v_scales;
  auto const first = storage.first_token(id, l, which), length = storage.length(id);
  auto const size = tensor_bytes(storage, l, is_k, length - first);
  if (!size.ok()) return size.state();
  writer.begin(snapshot_section::tensor, 8 + *size);
  writer.number(l.index);
  writer.number(is_k ? std::uint32_t{0} : std::uint32_t{1});
  auto const rows =
      storage.for_bytes(id, l, which, first, length, [&](auto bytes) { writer.bytes(bytes); });
  if (!rows.ok()) return rows;
  bool const once = is_k ? head_scaled_codec<typename Storage::k_codec>
                         : head_scaled_codec<typename Storage::v_codec>;
  bool written = false;
  auto const kept = storage.for_bytes(id, l, scales, first, length, [&](auto bytes) {
    if (!once || !written) writer.bytes(bytes);
    written = true;
  });
  writer.end();
  return kept;
}

}  // namespace detail

STRATA_NAMESPACE_END
