// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the K/V of each layer look like, and therefore who may read whom (law 3).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>

#include <strata/config.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// Where in a layer K is taken from. The cache holds the bytes that attention reads.
enum class capture_stage : std::int32_t {
  after_rope,  ///< after K-norm (if any) and RoPE: a reader rotates its query and nothing else
  before_rope  ///< a reader rotates the keys too, each by its own position
};

/// RoPE as far as it decides whether two layers' keys mean the same.
struct rope_parameters {
  double theta = 10000;    ///< base of the frequencies; 0 for no RoPE
  std::int32_t dims = -1;  ///< leading dimensions that are rotated; -1 for all (compared as given)
  double scaling = 1;      ///< factor by which positions are divided
  bool interleaved = false;  ///< rotates pairs (2i, 2i+1) instead of (i, i + dims/2)
  /// What else decides the angles, such as llama3's or YaRN's numbers: any number that is another
  /// where those are others. 0 for nothing else.
  std::uint64_t frequencies = 0;
  friend constexpr bool operator==(rope_parameters const&,
                                   rope_parameters const&) noexcept = default;
};

/// Layers of one KV class hold K/V of one kind. The element type is the storage's, not the class's.
struct kv_class {
  std::int32_t kv_heads = 1;
  std::int32_t k_dim = 64;  ///< elements per head of K, and of a query
  std::int32_t v_dim = 64;  ///< elements per head of V, and of the output
  rope_parameters rope = {};
  capture_stage capture = capture_stage::after_rope;
  friend constexpr bool operator==(kv_class const&, kv_class const&) noexcept = default;
};

/// A window that no context outgrows: full attention.
inline constexpr std::int32_t unbounded_window = (std::numeric_limits<std::int32_t>::max)();

/// One kind of attention layer.
struct layer_kind {
  kv_class kv = {};
  std::int32_t window = unbounded_window;  ///< keys a query sees, itself included
  std::int32_t stage = 0;                  ///< pipeline stage that runs the layer
  bool has_kv = true;                      ///< false for linear attention and the like
  friend constexpr bool operator==(layer_kind const&, layer_kind const&) noexcept = default;
};

/// What a source is read for. Training holds the K/V of the whole pass, so the reader's own mask
/// decides; a serving cache with a window has dropped what lies outside it.
enum class use : std::int32_t { training, serving };

/// Whether `reader` may read the K/V of `source`, and if not, why. The layers are named only for
/// the error.
constexpr status may_read(layer_kind const& reader, layer_id reader_id, layer_kind const& source,
                          layer_id source_id, use purpose) noexcept {
  auto const refuse = [&](errc code, std::int64_t bound = 0) {
    return status{code, reader_id, source_id.index, bound};
  };
  if (!source.has_kv || !reader.has_kv) return refuse(errc::source_without_kv);
  if (reader.kv != source.kv) return refuse(errc::class_mismatch);
  if (reader.stage != source.stage) return refuse(errc::stage_mismatch);
  if (purpose == use::serving && source.window < reader.window)
    return refuse(errc::window_too_small, source.window);
  return {};
}

/// The kinds of a model's layers: at most 16 different ones, and a byte per layer. Trivially
/// copyable, 1.5 KB.
class kv_classes {
 public:
  static constexpr std::int32_t max_kinds = 16;

  constexpr kv_classes() noexcept = default;

  /// A model whose layers are all of one kind. Refused in `make_plan` when the number of layers is
  /// not between 1 and max_layers.
  static constexpr kv_classes uniform(std::int32_t num_layers, layer_kind kind = {}) noexcept {
    kv_classes classes;
    classes.num_layers_ = num_layers;
    classes.num_kinds_ = 1;
    classes.kinds_[0] = kind;
    return classes;
  }

  /// A model described layer by layer.
  static constexpr result<kv_classes> make(std::span<layer_kind const> layers) noexcept {
    auto const count = static_cast<std::int64_t>(layers.size());
    if (count < 1) return status{errc::no_layers, no_layer, count, 1};
    if (count > max_layers) return status{errc::too_many_layers, no_layer, count, max_layers};
    kv_classes classes;
    for (auto const& kind : layers)
      if (auto const added = classes.append(kind); !added.ok()) return added;
    return classes;
  }

  constexpr std::int32_t num_layers() const noexcept { return num_layers_; }
  constexpr std::int32_t num_kinds() const noexcept { return num_kinds_; }
  constexpr layer_kind const& operator[](layer_id layer) const noexcept {
    return kinds_[kind_of_[layer.index]];
  }
  constexpr layer_kind const& kind(std::int32_t index) const noexcept { return kinds_[index]; }
  /// Which of the kinds a layer is of.
  constexpr std::int32_t kind_of(layer_id layer) const noexcept { return kind_of_[layer.index]; }

  /// Refuses a count that no plan can hold, and sizes that are no sizes.
  constexpr status check() const noexcept {
    if (num_layers_ < 1) return {errc::no_layers, no_layer, num_layers_, 1};
    if (num_layers_ > max_layers) return {errc::too_many_layers, no_layer, num_layers_, max_layers};
    for (layer_id l{0}; num_layers_ > l.index; ++l.index)
      if (auto const s = check_kind((*this)[l], l); !s.ok()) return s;
    return {};
  }

  /// `may_read` for two layers of this model.
  constexpr status readable(layer_id reader, layer_id source, use purpose) const noexcept {
    return may_read((*this)[reader], reader, (*this)[source], source, purpose);
  }

 private:
  /// Bounds that keep every product of a model's sizes well inside 64 bits.
  static constexpr std::int32_t max_extent = 65536;

  static constexpr status check_kind(layer_kind const& kind, layer_id layer) noexcept {
    if (!kind.has_kv) return {};
    for (auto const extent : {kind.kv.kv_heads, kind.kv.k_dim, kind.kv.v_dim})
      if (extent < 1 || extent > max_extent)
        return {errc::bad_layer_kind, layer, extent, max_extent};
    for (auto const number : {kind.kv.rope.theta, kind.kv.rope.scaling})
      if (!(number >= 0 && number < 1e300)) return {errc::bad_rope, layer};
    if (kind.window < 1) return {errc::bad_layer_kind, layer, kind.window, max_extent};
    return {};
  }

  constexpr status append(layer_kind const& kind) noexcept {
    std::int32_t index = 0;
    while (index < num_kinds_ && kinds_[index] != kind) ++index;
    if (index == max_kinds)
      return {errc::too_many_layer_kinds, {num_layers_}, index + 1, max_kinds};
    if (index == num_kinds_) kinds_[num_kinds_++] = kind;
    kind_of_[num_layers_++] = static_cast<std::uint8_t>(index);
    return {};
  }

  layer_kind kinds_[max_kinds] = {};
  std::uint8_t kind_of_[max_layers] = {};  // all 0 in a uniform model
  std::int32_t num_layers_ = 0;
  std::int32_t num_kinds_ = 0;
};

STRATA_NAMESPACE_END
