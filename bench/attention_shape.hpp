// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One attention call of the benchmarks: its sizes, its name, and the least work it is.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>

#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/int8_codec.hpp>

#include "codec_name.hpp"
#include "machine_work.hpp"

namespace bench {

/// The last `rows` tokens of each of `batch` sequences attend, causally, to its `context` tokens,
/// theirs included. 4 query heads per KV head: Llama-3.1-8B, Mistral-7B and Qwen3-8B.
struct attention_shape {
  std::int32_t q_heads = 32, kv_heads = 8, dim = 128;
  std::int32_t context = 16384, rows = 1, batch = 1;
  std::int32_t block = 0;    ///< tokens per block of a paged cache, shuffled; 0: contiguous
  bool heads_first = false;  ///< [head, token, dim] (HND) instead of [token, head, dim] (NHD)
  std::int32_t threads = 0;  ///< 0: as --threads says; that is not part of the name

  /// "attention/<set>/kernel:.../...": programs that read the figures split it at / and :.
  std::string name(std::string const& set, std::string const& kernel,
                   std::string const& codec) const {
    auto const part = [](char const* key, std::int32_t value) {
      return std::string("/") + key + ":" + std::to_string(value);
    };
    auto name = "attention/" + set + "/kernel:" + kernel + "/codec:" + codec +
                part("q_heads", q_heads) + part("kv_heads", kv_heads) + part("dim", dim) +
                part("context", context) + part("rows", rows) + part("batch", batch);
    if (block > 0) name += part("block", block);
    if (heads_first) name += "/order:hnd";
    if (threads > 0) name += part("threads", threads);
    return name;
  }

  /// Pairs of a query row and a key that it sees, of all sequences.
  double visible() const {
    return static_cast<double>(batch) * rows * (context - (rows - 1) / 2.0);
  }
  double kv_rows() const { return static_cast<double>(batch) * context * kv_heads; }

  /// What is counted, at the very least, of a forward call:
  /// - bytes: every byte of K and V (and scales) once, however many query heads and rows share it;
  ///   queries and outputs are not counted.
  /// - flops: 4 per query head, element and visible pair: 2 for q . k, 2 for p * v; softmax is not
  ///   counted. At the rate of float multiply-adds, whatever K and V are kept in: queries and weights
  ///   are float, and a dot product of bfloat16 would round them. Where queries (Query) and K are
  ///   bfloat16, q . k is counted at the rate of such dot products, if that is the higher one.
  /// - conversions: every element of K and V made float once. None for bfloat16, which is float but
  ///   for a shift, and none for float. Of fp8 that from float16, which it takes at least; of int4
  ///   none, as nobody knows how few instructions will do.
  template <class Codec, class Query = float>
  machine_work forward_work() const {
    machine_work work;
    using codecs = codecs_of<Codec>;
    work.bytes = kv_rows() * static_cast<double>(stored_bytes<typename codecs::k_codec>(dim) +
                                                 stored_bytes<typename codecs::v_codec>(dim));
    work.fma_flops = 4.0 * q_heads * dim * visible();
    if (std::same_as<Codec, strata::bf16_codec> && std::same_as<Query, strata::bfloat16>)
      work.bf16_flops = work.fma_flops /= 2;
    count_conversions<typename codecs::k_codec>(work);
    count_conversions<typename codecs::v_codec>(work);
    return work;
  }

  /// Of a backward call in float: 5 products for forward's 2, which are q . k again, dP, dV, dQ and
  /// dK.
  machine_work backward_work() const {
    auto work = forward_work<strata::f32_codec>();
    work.fma_flops *= 2.5;
    return work;
  }

 private:
  template <class Codec>
  void count_conversions(machine_work& work) const {
    auto const elements = kv_rows() * dim;
    if (std::same_as<Codec, strata::f16_codec> || std::same_as<Codec, strata::fp8_codec>)
      work.f16_conversions += elements;
    if (std::same_as<Codec, strata::int8_codec> || std::same_as<Codec, strata::q8_0_codec>)
      work.int8_conversions += elements;
  }
};

}  // namespace bench
