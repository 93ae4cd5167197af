// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows appended on a device, the launch run on the host, against the host's own `store`: the same
// bytes, in a batch of three depths.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/rotated_codec.hpp>
#include <strata/cuda/detail/append_call.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/stack.hpp>

#include "support/cache_tensor.hpp"
#include "support/exact_numbers.hpp"
#include "support/half_call.hpp"
#include "support/own_codecs.hpp"
#include "support/print.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::layer_id;
using strata::rotary;
using strata::cuda::detail::append_side;
using rotated_int4 = strata::rotated_codec<strata::int4_codec>;
/// What names no parts is encoded by whole rows.
struct undivided_codec : support::fixed_codec {};
using rotated_own = strata::rotated_codec<undivided_codec>;

constexpr std::int32_t append_layers = 4, append_kv_heads = 2, rotary_positions = 32;

/// Another one for every head of every layer, where the codec takes such.
template <class Codec>
std::vector<float> const& head_scales_of() {
  static auto const scales = [] {
    std::vector<float> x;
    if constexpr (strata::head_scaled_codec<Codec>)
      for (std::int32_t i = 0; i < append_layers * append_kv_heads; ++i)
        x.push_back(0.011f * static_cast<float>(i + 1));
    return x;
  }();
  return scales;
}

/// A server of three sequences: all layers lead, every second, the first alone.
template <class KCodec, class VCodec>
struct append_server {
  using storage_type = strata::paged_storage<KCodec, VCodec>;
  strata::kv_classes classes;
  strata::stack<storage_type, strata::reference_attention> stack;
  std::vector<strata::sequence_id> ids;

  static strata::head_scales scales() {
    return {head_scales_of<KCodec>(), head_scales_of<VCodec>()};
  }

  append_server(std::int32_t k_dim, std::int32_t v_dim)
      : classes(strata::kv_classes::uniform(
            append_layers, {.kv = {.kv_heads = append_kv_heads, .k_dim = k_dim, .v_dim = v_dim}})),
        stack(storage_type(
            classes,
            {.max_sequences = 3, .max_tokens = 24, .block_size = 8, .k_blocks = 40, .v_blocks = 40},
            {}, scales())) {
    for (auto const every : {1, 2, 4})
      ids.push_back(
          stack.open(*strata::make_plan(strata::grouped_map(append_layers, every), classes))
              .value());
  }
};

/// cos and sin of made-up angles.
struct rotary_tables {
  std::vector<float> cos, sin;
  explicit rotary_tables(std::int32_t dims) {
    for (std::int32_t i = 0; i < rotary_positions * dims / 2; ++i) {
      cos.push_back(static_cast<float>(std::cos(0.37 * i)));
      sin.push_back(static_cast<float>(std::sin(0.37 * i)));
    }
  }
};

template <class T>
std::vector<T> numbers_to_append(std::int64_t count, std::uint64_t seed) {
  return support::narrowed<T>(support::random_values<float>(count, seed));
}

/// K and V as one product leaves them: [rows, queries | K | V], of which nobody is to read queries.
template <class T>
struct product_of_all {
  std::vector<T> rows;
  std::int64_t k_begin = 0, v_begin = 0, stride = 0;

  product_of_all(std::vector<T> const& k, std::vector<T> const& v, std::int64_t count,
                 std::int64_t queries)
      : k_begin(queries) {
    auto const k_width = static_cast<std::int64_t>(k.size()) / count;
    auto const v_width = static_cast<std::int64_t>(v.size()) / count;
    v_begin = k_begin + k_width;
    stride = v_begin + v_width;
    auto const nan = std::numeric_limits<float>::quiet_NaN();
    rows.assign(support::as_size(count * stride), strata::detail::narrow<T>(nan));
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(k.begin() + i * k_width, k_width, rows.begin() + i * stride + k_begin);
      std::copy_n(v.begin() + i * v_width, v_width, rows.begin() + i * stride + v_begin);
    }
  }
};

/// Stores the rows of a step by the host in one server and by launches in the other; calls
/// compare(host row, device row, bytes) for every head of every token stored. The launches read
/// rows without gaps, or with `queries` elements before each K, and V after it.
template <class T, class KCodec, class VCodec, class Compare>
void run_appends(std::int32_t k_dim, std::int32_t v_dim, rotary<float> const& rope,
                 Compare&& compare, std::int64_t queries = -1) {
  append_server<KCodec, VCodec> host(k_dim, v_dim), device(k_dim, v_dim);
  std::vector<strata::batch_entry> batch;
  std::int32_t const new_tokens[] = {5, 1, 11};
  for (std::size_t i = 0; i < 3; ++i) batch.push_back({host.ids[i], new_tokens[i]});
  auto a = host.stack.begin(batch), b = device.stack.begin(batch);
  REQUIRE(a.state().ok());
  auto const rows = std::int64_t{a.num_rows()};
  for (layer_id l{0}; l.index < append_layers; ++l.index) {
    auto const seed = static_cast<std::uint64_t>(l.index) * 7 + 1;
    auto const k = numbers_to_append<T>(rows * append_kv_heads * k_dim, seed);
    auto const v = numbers_to_append<T>(rows * append_kv_heads * v_dim, seed + 1);
    auto const store = [&](auto const& runs, T const* x, std::int32_t dim, bool turns) {
      for (auto const& r : runs)
        for (std::int32_t i = 0; i < r.num_rows(); ++i) {
          T const* const row = x + std::int64_t{r.first_row() + i} * append_kv_heads * dim;
          if (turns)
            r.store_rotated(i, row, rope);
          else
            r.store(i, row);
        }
    };
    store(a.k_writers(l), k.data(), k_dim, rope.cos != nullptr);
    store(a.v_writers(l), v.data(), v_dim, false);
    // On the device all input rows go in one launch; plans that do not store are passed by.
    append_side<T> k_side, v_side;
    for (auto const& r : b.k_writers(l))
      k_side = {k.data(), r.destination(), 0, b.num_rows()}, r.mark_stored();
    for (auto const& r : b.v_writers(l))
      v_side = {v.data(), r.destination(), 0, b.num_rows()}, r.mark_stored();
    product_of_all<T> const all(k, v, rows, queries < 0 ? 0 : queries);
    if (queries >= 0) {
      k_side.heads = all.rows.data() + all.k_begin;
      v_side.heads = all.rows.data() + all.v_begin;
      k_side.row_stride = v_side.row_stride = all.stride;
    }
    support::simt_launcher const launcher{static_cast<simt::order>(l.index % 3)};
    REQUIRE(strata::cuda::detail::append_on<KCodec, VCodec>(launcher, k_side, v_side, rope).ok());

    auto const x = a.view(l).value(), y = b.view(l).value();
    for (std::int32_t s = 0; s < 3; ++s)
      for (std::int32_t h = 0; h < append_kv_heads; ++h)
        for (std::int32_t t = 0; t < x.length(s, h); ++t) {
          auto const each = [&](auto const& p, auto const& q, auto codec, std::int32_t dim) {
            using codec_type = decltype(codec);
            auto const from = p.row(s, h, append_kv_heads), to = q.row(s, h, append_kv_heads);
            compare(codec, p.at(from, h, t), p.scales_at(from, h, t), q.at(to, h, t),
                    q.scales_at(to, h, t), dim);
            static_assert(strata::kv_codec<codec_type>);
          };
          each(x.k, y.k, KCodec{}, k_dim);
          each(x.v, y.v, VCodec{}, v_dim);
        }
  }
  CHECK(a.commit().ok());
  CHECK(b.commit().ok());
}

constexpr auto same_bytes = [](auto codec, std::byte const* a, std::byte const* a_scales,
                               std::byte const* b, std::byte const* b_scales, std::int32_t dim) {
  using codec_type = decltype(codec);
  REQUIRE(std::memcmp(a, b, support::as_size(codec_type::row_bytes(dim))) == 0);
  if (a_scales != nullptr)
    REQUIRE(std::memcmp(a_scales, b_scales, support::as_size(codec_type::scale_bytes(dim))) == 0);
};

template <class Codec>
std::vector<double> decoded_row(std::byte const* row, std::byte const* scales, std::int32_t dim) {
  std::vector<double> x(support::as_size(dim));
  Codec::decode(row, scales, dim, x.data());
  return x;
}

}  // namespace

TEST_CASE_TEMPLATE("cuda append: the bytes of the host's store", Codec, strata::f32_codec,
                   strata::f16_codec, strata::bf16_codec, strata::int8_codec, strata::q8_0_codec,
                   strata::fp8_codec, strata::int4_codec, rotated_int4, rotated_own,
                   support::row_scaled_codec, support::fixed_codec) {
  for (auto const& dims : {std::pair{64, 64}, {128, 32}, {80, 7}, {33, 100}}) {
    auto const k_dim = dims.first, v_dim = dims.second;
    CAPTURE(k_dim);
    run_appends<float, Codec, Codec>(k_dim, v_dim, {}, same_bytes);
    run_appends<float, Codec, strata::bf16_codec>(k_dim, v_dim, {}, same_bytes);
  }
}

TEST_CASE("cuda append: rows of one product for Q and K and V, aligned and not") {
  using strata::bf16_codec;
  for (std::int64_t const queries : {0, 3, 64}) {
    CAPTURE(queries);
    run_appends<float, strata::f32_codec, strata::int8_codec>(64, 32, {}, same_bytes, queries);
    run_appends<strata::bfloat16, bf16_codec, bf16_codec>(64, 64, {}, same_bytes, queries);
    run_appends<strata::float16, strata::f16_codec, strata::f16_codec>(33, 7, {}, same_bytes,
                                                                       queries);
  }
}

TEST_CASE("cuda append: RoPE, within a rounding of the host's") {
  for (auto const interleaved : {false, true})
    for (auto const dims : {64, 48}) {
      rotary_tables const t(dims);
      auto const rope =
          rotary<float>::of(t.cos.data(), t.sin.data(), rotary_positions, dims, interleaved);
      run_appends<float, strata::f32_codec, strata::f32_codec>(
          64, 64, rope, [&](auto codec, auto... at) {
            [&](std::byte const* a, std::byte const*, std::byte const* b, std::byte const*,
                std::int32_t dim) {
              auto const x = decoded_row<decltype(codec)>(a, nullptr, dim),
                         y = decoded_row<decltype(codec)>(b, nullptr, dim);
              for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(std::abs(x[i] - y[i]) <= 0x1p-21);
            }(at...);
          });
    }
}

TEST_CASE_TEMPLATE("cuda append: a position beyond the table becomes NaN", Codec, strata::f32_codec,
                   strata::f16_codec, strata::bf16_codec, strata::int8_codec, strata::q8_0_codec,
                   strata::fp8_codec, strata::int4_codec, rotated_int4, rotated_own,
                   support::row_scaled_codec, support::fixed_codec) {
  rotary_tables const t(64);
  auto const rope = rotary<float>::of(t.cos.data(), t.sin.data(), 8, 64);  // the longest has 11
  for (auto const dim : {64, 80, 101}) {
    CAPTURE(dim);
    append_server<Codec, Codec> device(dim, dim);
    auto step = device.stack.begin({{device.ids[0], 11}});
    auto const k = support::random_values<float>(std::int64_t{11} * append_kv_heads * dim, 1);
    append_side<float> const side{k.data(), step.k_writers({0})[0].destination(), 0, 11};
    support::simt_launcher const launcher;
    REQUIRE(strata::cuda::detail::append_on<Codec, Codec>(launcher, side, {}, rope).ok());
    auto const view = step.view({0}).value();
    for (std::int32_t h = 0; h < append_kv_heads; ++h)
      for (std::int32_t i = 0; i < 11; ++i) {
        std::vector<float> key(support::as_size(dim));
        view.load_k(0, h, i, key.data());
        for (auto const x : key) REQUIRE(std::isnan(x) == (i >= 8));
      }
  }
}

TEST_CASE("cuda append: impossible sides are refused") {
  rotary_tables const t(64);
  append_server<strata::f32_codec, strata::f32_codec> device(64, 64);
  auto step = device.stack.begin({{device.ids[0], 11}});
  auto const k = support::random_values<float>(11 * append_kv_heads * 64, 1);
  append_side<float> const side{k.data(), step.k_writers({0})[0].destination(), 0, 11};
  auto const append = [&](append_side<float> const& s, rotary<float> const& r) {
    support::simt_launcher const launcher;
    return strata::cuda::detail::append_on<strata::f32_codec, strata::f32_codec>(launcher, s, {},
                                                                                 r);
  };
  auto bad = side;
  bad.heads = nullptr;
  CHECK(append(bad, {}).code == strata::errc::null_pointer);
  bad = side;
  bad.num_rows = -1;
  CHECK(append(bad, {}).code == strata::errc::value_too_small);
  bad = side;
  bad.to.dim = 2000;
  CHECK(append(bad, {}).code == strata::errc::head_too_large);
  bad = side;
  bad.row_stride = append_kv_heads * 64 - 1;
  auto const overlapping = append(bad, {});
  CHECK(overlapping.code == strata::errc::value_too_small);
  CHECK(overlapping.value == append_kv_heads * 64 - 1);
  CHECK(overlapping.bound == append_kv_heads * 64);
  CHECK(append(side, rotary<float>::of(t.cos.data(), t.sin.data(), 8, 66)).code ==
        strata::errc::rope_dims_mismatch);
}
