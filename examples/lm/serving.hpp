// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// From a command line to a server: strategies, codecs, how much memory there is and what must fit
// into it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/footprint.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rotated_codec.hpp>
#include <strata/cache/storage.hpp>
#include <strata/map/strategy.hpp>
#include <strata/plan.hpp>
#include <strata/thread_pool.hpp>

#include "failure.hpp"
#include "fit.hpp"
#include "served_model.hpp"
#include "server.hpp"
#include "units.hpp"

namespace lm {

/// How the elements of K and V are kept: both alike, or K / V. rot_int4 rotates heads of K before it
/// rounds them. Scales of fp8 are 1: K and V beyond 448 are cut off there. The library takes any
/// pair; each costs 7 s of compiling, so that these are what the program has.
enum class cache_codec {
  f32,
  f16,
  bf16,
  int8,
  q8_0,
  fp8,
  int8_int4,
  int4_int8,
  int4,
  rot_int4_int4
};
inline constexpr cache_codec cache_codecs[] = {
    cache_codec::f32,  cache_codec::f16,          cache_codec::bf16,      cache_codec::int8,
    cache_codec::q8_0, cache_codec::fp8,          cache_codec::int8_int4, cache_codec::int4_int8,
    cache_codec::int4, cache_codec::rot_int4_int4};

inline char const* codec_name(cache_codec codec) {
  constexpr char const* names[] = {"f32", "f16",       "bf16",      "int8", "q8_0",
                                   "fp8", "int8/int4", "int4/int8", "int4", "rot_int4/int4"};
  return names[static_cast<std::size_t>(codec)];
}

/// Pairs with int4, which the servers of serving_int4.cpp keep.
constexpr bool has_int4(cache_codec codec) noexcept { return codec >= cache_codec::int8_int4; }

/// Calls body with the library's codecs of K and V, of a pair without int4.
template <class Body>
auto with_wide_codecs(cache_codec codec, Body const& body) {
  switch (codec) {
    case cache_codec::f16:
      return body(strata::f16_codec{}, strata::f16_codec{});
    case cache_codec::bf16:
      return body(strata::bf16_codec{}, strata::bf16_codec{});
    case cache_codec::int8:
      return body(strata::int8_codec{}, strata::int8_codec{});
    case cache_codec::q8_0:
      return body(strata::q8_0_codec{}, strata::q8_0_codec{});
    case cache_codec::fp8:
      return body(strata::fp8_codec{}, strata::fp8_codec{});
    default:
      return body(strata::f32_codec{}, strata::f32_codec{});
  }
}

/// The same of a pair with int4.
template <class Body>
auto with_int4_codecs(cache_codec codec, Body const& body) {
  using int4 = strata::int4_codec;
  switch (codec) {
    case cache_codec::int8_int4:
      return body(strata::int8_codec{}, int4{});
    case cache_codec::int4_int8:
      return body(int4{}, strata::int8_codec{});
    case cache_codec::rot_int4_int4:
      return body(strata::rotated_codec<int4>{}, int4{});
    default:
      return body(int4{}, int4{});
  }
}

/// The same of any.
template <class Body>
auto with_codecs(cache_codec codec, Body const& body) {
  return has_int4(codec) ? with_int4_codecs(codec, body) : with_wide_codecs(codec, body);
}

/// A strategy as it was given, and what it means for one model.
struct strategy {
  std::string given;
  strata::route_plan plan;
  std::vector<std::int32_t> leaders;  ///< layers that keep K/V
  double retention = 1;               ///< the true one

  /// Layers of the tail, whose work a prompt needs for one row only: those above tail_begin.
  double skipped_fraction() const {
    return static_cast<double>(plan.num_layers - 1 - plan.tail_begin) / plan.num_layers;
  }
};

/// Throws `wrong_use` with a mark under the character that cannot be.
inline strategy resolve_strategy(std::string const& given, model_config const& config) {
  auto const classes = config.classes();
  auto const map = strata::parse_strategy(given, classes);
  require(map.state(), "--strategy", given);
  auto const plan = strata::make_plan(*map, classes);
  require(plan.state(), "--strategy " + given);
  strategy s{given, *plan, {}, strata::retention(*plan, classes)};
  for (strata::layer_id l{0}; config.layers > l.index; ++l.index)
    if (s.plan[l].k.stored) s.leaders.push_back(l.index);
  return s;
}

inline std::vector<strategy> resolve_strategies(std::vector<std::string> const& given,
                                                model_config const& config) {
  std::vector<strategy> strategies;
  for (auto const& one : given) strategies.push_back(resolve_strategy(one, config));
  return strategies;
}

/// "0,4,8" or, of a longer list, "0,4,8,... (9)".
inline std::string leaders_text(std::vector<std::int32_t> const& leaders, std::size_t most = 4) {
  std::string out;
  for (std::size_t i = 0; i < leaders.size() && i < most; ++i)
    out += text(i > 0 ? ",%d" : "%d", leaders[i]);
  if (leaders.size() > most) out += text(",... (%zu)", leaders.size());
  return out;
}

/// The sum of two sizes; throws where that exceeds 64 bits.
inline std::int64_t checked_sum(std::int64_t a, std::int64_t b, char const* what) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum))
    require({strata::errc::size_overflow, strata::no_layer, a, b}, what);
  return sum;
}

/// The cache of a server.
struct cache_options {
  cache_codec codec = cache_codec::f32;
  std::int32_t max_sequences = 1;
  std::int32_t max_tokens = 0;  ///< per sequence
};

/// Bytes that the storage of such a cache allocates for K and V: every stored tensor is one run of
/// max_tokens tokens, its rows and its scales each rounded up to a cache line. Throws where that
/// exceeds 64 bits.
inline std::int64_t cache_bytes(strata::route_plan const& plan, model_config const& config,
                                cache_options const& options) {
  auto const of_tensor = [&](std::int32_t tokens, std::int64_t head_bytes) {
    auto const bytes = strata::checked_multiply(tokens, config.kv_heads * head_bytes);
    require(bytes.state(), "the size of the cache");
    return (*bytes + 63) / 64 * 64;
  };
  auto const of_side = [&]<class Codec>(Codec, std::int32_t slots) {
    auto const scaled = strata::head_scaled_codec<Codec> ? 1 : options.max_tokens;
    auto const bytes =
        strata::checked_multiply(of_tensor(options.max_tokens, Codec::row_bytes(config.head_dim)) +
                                     of_tensor(scaled, Codec::scale_bytes(config.head_dim)),
                                 std::int64_t{slots} * options.max_sequences);
    require(bytes.state(), "the size of the cache");
    return *bytes;
  };
  auto const sides = with_codecs(options.codec, [&](auto k, auto v) {
    return std::pair(of_side(k, plan.k_slots), of_side(v, plan.v_slots));
  });
  return checked_sum(sides.first, sides.second, "the size of the cache");
}

/// Bytes of what a server keeps beside K and V: RoPE's cosines and sines, and the positions of all
/// tokens. At long contexts they weigh: of qwen3-8b at every:36, an eighth of K and V.
inline std::int64_t table_bytes(model_config const& config, cache_options const& options) {
  auto const per_position =
      (std::int64_t{config.head_dim} + options.max_sequences) * std::int64_t{sizeof(float)};
  auto const bytes = strata::checked_multiply(per_position, options.max_tokens);
  require(bytes.state(), "the size of the position tables");
  return *bytes;
}

/// Bytes of a server's K and V and of what it has beside them. Throws where that exceeds 64 bits.
inline std::int64_t server_bytes(std::int64_t cache, std::int64_t beside) {
  return checked_sum(cache, beside, "the size of the server");
}
/// The same of one on the processor, all but its activations.
inline std::int64_t server_bytes(strata::route_plan const& plan, model_config const& config,
                                 cache_options const& options) {
  return server_bytes(cache_bytes(plan, config, options), table_bytes(config, options));
}

/// A server with a contiguous cache for sequences of this plan. What does not fit in memory is
/// refused with the bytes needed before anything is allocated. The model and the threads must
/// outlive it, and so must `memory`, which K and V then lie in instead of memory of their own.
std::unique_ptr<server<float>> make_server(served_model<float> const& model,
                                           strata::thread_pool& pool,
                                           strata::route_plan const& plan,
                                           cache_options const& options,
                                           strata::borrowed_memory memory = {});

/// The same of a pair with int4, and without the question whether it fits.
std::unique_ptr<server<float>> make_int4_server(served_model<float> const& model,
                                                strata::thread_pool& pool,
                                                strata::route_plan const& plan,
                                                cache_options const& options,
                                                strata::borrowed_memory memory);

}  // namespace lm
