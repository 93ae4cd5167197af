// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A codec of one's own: int8 with one scale per row (a head of one token), kept apart from the
// numbers. A codec says how many bytes a row takes and converts it; where the bytes lie is the
// storage's matter, and every storage and kernel takes any codec.
#include <strata/strata.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

/// Round trip: |decoded - given| <= largest of the row / 254, and a rounding of float.
struct int8_codec {
  static constexpr bool exact = false;  // what is read is not what was written

  static std::int64_t row_bytes(std::int32_t n) noexcept { return n; }
  static std::int64_t scale_bytes(std::int32_t) noexcept { return sizeof(float); }

  template <std::floating_point T>
  static void encode(T const* in, std::int32_t n, std::byte* row, std::byte* scales) noexcept {
    float largest = 0;
    for (std::int32_t i = 0; i < n; ++i)
      largest = std::fmax(largest, static_cast<float>(std::abs(in[i])));
    float const scale = largest / 127;
    std::memcpy(scales, &scale, sizeof(scale));  // rows and scales may lie unaligned
    for (std::int32_t i = 0; i < n; ++i) {
      // A scale that was rounded down, or to 0, must not lead beyond 127.
      float const steps = scale > 0 ? std::round(static_cast<float>(in[i]) / scale) : 0;
      auto const x = static_cast<std::int8_t>(std::clamp(steps, -127.0f, 127.0f));
      std::memcpy(row + i, &x, 1);
    }
  }

  template <std::floating_point T>
  static void decode(std::byte const* row, std::byte const* scales, std::int32_t n,
                     T* out) noexcept {
    float scale;
    std::memcpy(&scale, scales, sizeof(scale));
    for (std::int32_t i = 0; i < n; ++i) {
      std::int8_t x;
      std::memcpy(&x, row + i, 1);
      out[i] = static_cast<T>(static_cast<float>(x) * scale);
    }
  }
};
static_assert(strata::kv_codec<int8_codec>);

constexpr std::int32_t tokens = 48, q_heads = 4, kv_heads = 2, dim = 32;

std::vector<float> random_values(std::int32_t heads, std::uint32_t seed) {
  std::minstd_rand engine(seed);
  std::vector<float> values(static_cast<std::size_t>(tokens * heads * dim));
  for (auto& x : values) x = static_cast<float>(engine()) * 0x1p-30f - 1;  // in [-1, 1]
  return values;
}

/// One prefill through one layer whose cache keeps K and V in Codec: what attention answers.
template <class Codec>
std::vector<float> attend() {
  auto const model =
      strata::kv_classes::uniform(1, {.kv = {.kv_heads = kv_heads, .k_dim = dim, .v_dim = dim}});
  auto const plan = *strata::make_plan(strata::identity_map(1), model);
  strata::stack server(strata::contiguous_storage<Codec>(
                           model, strata::contiguous_options::for_plan(plan, 1, tokens)),
                       strata::reference_attention{});
  std::printf("%lld bytes of cache\n", static_cast<long long>(server.storage().allocated_bytes()));
  auto const q = random_values(q_heads, 1), k = random_values(kv_heads, 2),
             v = random_values(kv_heads, 3);
  std::vector<float> out(q.size());
  std::vector<std::byte> workspace(1 << 16);
  strata::serial_executor here;
  auto step = server.begin({*server.open(plan), tokens, strata::logits::all});
  for (auto const& run : step.k_writers({0})) run.store_all(k.data());
  for (auto const& run : step.v_writers({0})) run.store_all(v.data());
  strata::layer_queries<float> const queries{.q = q.data(), .out = out.data(), .q_heads = q_heads};
  auto s = step.attend(here, {0}, queries, workspace);
  if (s.ok()) s = step.commit();
  if (!s.ok()) std::puts(strata::describe(s).c_str());
  return s.ok() ? out : std::vector<float>{};
}

int main() {
  auto const as_int8 = attend<int8_codec>(), as_float = attend<strata::f32_codec>();
  if (as_int8.empty() || as_float.empty()) return 1;
  float error = 0;
  for (std::size_t i = 0; i < as_int8.size(); ++i)
    error = std::fmax(error, std::abs(as_int8[i] - as_float[i]));
  // V is off by 1/254 at most. So is K, which puts a score q k / sqrt(dim) off by sqrt(dim) / 254,
  // and a weight of the softmax by a factor of exp(twice that).
  float const bound = 1 / 254.0f + std::expm1(2 * std::sqrt(float{dim}) / 254);
  std::printf("attention over int8: off by %.4f at most, where %.4f is allowed\n",
              static_cast<double>(error), static_cast<double>(bound));
  return error <= bound ? 0 : 1;
}
