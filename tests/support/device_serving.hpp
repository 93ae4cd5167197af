// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving on a device as an engine would do it, wherever the launches run: a batch of three depths,
// against a server of the host with the reference attention in double.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/borrowed_storage.hpp>
#include <strata/cuda/detail/append_call.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "cache_tensor.hpp"
#include "engine_cache.hpp"
#include "half_call.hpp"
#include "host_memory_device.hpp"
#include "print.hpp"
#include "sanitized.hpp"

namespace support::serving {

using strata::layer_id;

constexpr std::int32_t layers = 4, kv_heads = 2, q_heads = 8, dim = 64, most_tokens = 96;

inline strata::kv_classes const model =
    strata::kv_classes::uniform(layers, {.kv = {.kv_heads = kv_heads, .k_dim = dim, .v_dim = dim}});

/// Numbers that T holds, of one row of one layer: the same whoever asks.
template <class T>
std::vector<T> numbers(std::int32_t count, std::uint64_t what, layer_id l, std::int32_t seq,
                       std::int32_t position) {
  auto const seed = ((what * 8 + as_size(l.index)) * 8 + as_size(seq)) * 1024 + as_size(position);
  return narrowed<T>(random_values<float>(count, seed));
}

template <class Storage>
struct sequences {
  strata::stack<Storage, strata::reference_attention> stack;
  std::vector<strata::sequence_id> ids;

  explicit sequences(strata::head_scales const& scales = {})
      : sequences(Storage(model, {3, most_tokens, 16, 80, 80}, {}, scales)) {}
  explicit sequences(Storage storage) : stack(std::move(storage)) {
    for (auto const every : {1, 2, 4})
      ids.push_back(
          stack.open(*strata::make_plan(strata::grouped_map(layers, every), model)).value());
  }
  std::vector<strata::batch_entry> batch(std::vector<std::int32_t> const& tokens) const {
    std::vector<strata::batch_entry> entries;
    for (std::size_t i = 0; i < tokens.size(); ++i) entries.push_back({ids[i], tokens[i]});
    return entries;
  }
};

/// What the batch's rows bring, [rows, heads, dim].
template <class T, class Step>
std::vector<T> rows_of(Step const& step, std::vector<std::int32_t> const& tokens,
                       std::int32_t heads, std::uint64_t what, layer_id l) {
  std::vector<T> all;
  std::size_t row = 0;
  for (std::size_t s = 0; s < tokens.size(); ++s)
    for (std::int32_t i = 0; i < tokens[s]; ++i) {
      auto const position = step.positions()[row++];
      auto const x = numbers<T>(heads * dim, what, l, static_cast<std::int32_t>(s), position);
      all.insert(all.end(), x.begin(), x.end());
    }
  return all;
}

/// A step of both; the greatest difference of their outputs.
template <class T, class Codec, class Host, class Device, class Mirror, class Kernel>
double step_of_both(Host& host, Device& device, Mirror& mirror, Kernel const& kernel,
                    std::vector<std::int32_t> const& tokens) {
  auto a = host.stack.begin(host.batch(tokens));
  auto b = device.stack.begin(device.batch(tokens));
  REQUIRE(b.state().ok());
  REQUIRE(mirror.send(b).ok());
  double worst = 0;
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto const k = rows_of<T>(b, tokens, kv_heads, 1, l), v = rows_of<T>(b, tokens, kv_heads, 2, l);
    auto const q = rows_of<T>(b, tokens, q_heads, 3, l);
    auto const width = std::int64_t{kv_heads} * dim;
    for (auto const& run : a.k_writers(l)) run.store_all(k.data() + run.first_row() * width);
    for (auto const& run : a.v_writers(l)) run.store_all(v.data() + run.first_row() * width);
    auto const k_side = mirror.k_side(b, l, k.data()), v_side = mirror.v_side(b, l, v.data());
    REQUIRE(
        strata::cuda::detail::append_on<Codec, Codec>(kernel.launcher, k_side, v_side, {}).ok());

    auto const exact_q = as_doubles(q);
    std::vector<double> exact(q.size());
    std::vector<T> got(q.size());
    strata::serial_executor here;
    std::vector<std::byte> workspace(1 << 16);
    strata::layer_queries<double> const asked{
        .q = exact_q.data(), .out = exact.data(), .q_heads = q_heads};
    REQUIRE(a.attend(here, l, asked, workspace).ok());

    strata::layer_queries<T> const queries{.q = q.data(), .out = got.data(), .q_heads = q_heads};
    auto const rows = mirror.queries(b, l, queries).value();
    auto const view = mirror.view(b, l).value();
    auto bounded = kernel;
    bounded.bounds = {b.num_rows(), *std::max_element(tokens.begin(), tokens.end())};
    std::vector<std::byte> memory(as_size(bounded.workspace_bytes(rows, view, 1)));
    auto const done = strata::attend(here, bounded, rows, view, memory);
    CAPTURE(done);
    REQUIRE(done.ok());
    worst = std::max(worst, tensor_distance(widened(got), exact).error);
  }
  REQUIRE(a.commit().ok());
  REQUIRE(b.commit().ok());
  return worst;
}

/// Chunks, then tokens one by one, some sequences resting.
template <class T, class Codec, class Storage, class Kernel>
double worst_of_serving(Kernel const& kernel, sequences<Storage>& device,
                        strata::head_scales const& scales = {}) {
  using device_type = host_memory_device<decltype(kernel.launcher)>;
  using mirror_type = strata::cuda::detail::step_mirror_on<device_type>;
  sequences<strata::paged_storage<Codec>> host(scales);
  auto mirror =
      mirror_type::make({}, device.stack.storage(), mirror_type::bytes_for(layers, 3, 64, 16))
          .value();
  double worst = 0;
  for (std::vector<std::int32_t> const& tokens :
       {std::vector<std::int32_t>{20, 5, 1}, {12, 0, 30}, {1, 1, 1}, {1, 1, 1}, {4, 1, 2}})
    worst = std::max(worst, step_of_both<T, Codec>(host, device, mirror, kernel, tokens));
  return worst;
}

template <class T, class Codec, class Kernel>
double worst_of_serving(Kernel const& kernel, strata::head_scales const& scales = {}) {
  sequences<strata::paged_storage<Codec>> device(scales);
  return worst_of_serving<T, Codec>(kernel, device, scales);
}

/// The same in an engine's memory, by its tables.
template <class T, class Codec, class Kernel>
double worst_of_borrowing(Kernel const& kernel, strata::head_scales const& scales = {}) {
  using storage = strata::borrowed_storage<Codec>;
  storage_host<storage> engine(model, {.max_sequences = 3, .max_tokens = most_tokens});
  using on_device = strata::cuda::borrowed_device_storage<storage>;
  sequences<on_device> device(on_device(engine.make(scales)));
  return worst_of_serving<T, Codec>(kernel, device, scales);
}

/// Every codec that matrix kernels read, and the plain path; one of them where a sanitizer watches.
template <class Kernel>
void check(Kernel const& kernel) {
  CHECK(worst_of_serving<strata::bfloat16, strata::bf16_codec>(kernel) < 0.02);
  if (call_step() > 1) return;
  CHECK(worst_of_serving<float, strata::f32_codec>(kernel) < 1e-5);
  CHECK(worst_of_serving<strata::float16, strata::int8_codec>(kernel) < 0.02);
}

template <class Kernel>
void check_borrowing(Kernel const& kernel) {
  CHECK(worst_of_borrowing<strata::float16, strata::int8_codec>(kernel) < 0.02);
  if (call_step() > 1) return;
  CHECK(worst_of_borrowing<float, strata::f32_codec>(kernel) < 1e-5);
  CHECK(worst_of_borrowing<strata::bfloat16, strata::bf16_codec>(kernel) < 0.02);
}

/// Every head with a scale of its own.
template <class Kernel>
void check_head_scales(Kernel const& kernel) {
  std::vector<float> k, v;
  for (std::int32_t i = 0; i < layers * kv_heads; ++i) {
    k.push_back(0.004f * static_cast<float>(i + 1));
    v.push_back(0.003f * static_cast<float>(i + 2));
  }
  CHECK(worst_of_serving<strata::bfloat16, strata::fp8_codec>(kernel, {k, v}) < 0.02);
  CHECK(worst_of_serving<strata::float16, strata::fp8_codec>(kernel, {k, v}) < 0.005);
}

}  // namespace support::serving
