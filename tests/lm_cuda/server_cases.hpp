// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A server on a device beside one of the host in double with the reference attention: the same
// weights, plans, texts and codec.
//
// Error model: weights are numbers of bf16 on both sides. On the device 4 + 10 layers roundings to
// bf16 lie between a token and its logits (embedding, final norm, K and V of the row itself; then
// per layer two norms, projection, RoPE, attention, two sums, gate, up, SwiGLU), each off by 2^-9 /
// sqrt(3) of what it rounds in the root of the mean square. Were they independent, and no weight
// made more of one than of another, the logits of a text would be off by sqrt(4 + 10 layers) times
// that, of their own length. `bound` is four times as much, and where the cache has fewer bits, one
// spacing of its numbers more: what was rounded before it is encoded falls to a neighbour now and
// then. A text that is read under another plan is off by more than four bounds.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/map/strategy.hpp>
#include <strata/thread_pool.hpp>

#include "cuda/device_server.hpp"
#include "lm/tiny.hpp"
#include "stack_server.hpp"

namespace server_cases {

using strata::logits;

/// Nothing fits eight numbers or 16 elements, and K and V are no neighbours: products one by one.
inline lm::model_config odd_shape() {
  auto c = tiny::shape();
  c.layers = 4;
  return c;
}
/// The same with everything optional.
inline lm::model_config optional_shape() {
  auto c = tiny::shape_with_options();
  c.layers = 3;
  return c;
}
/// Q, K and V are one product, gate and up another.
inline lm::model_config wide_shape() {
  auto c = tiny::shape();
  c.layers = 4;
  c.dim = 24;
  c.head_dim = 16;
  c.mlp = 40;
  c.vocab = 32;
  c.qk_norm = true;
  c.tied = false;
  return c;
}
/// Heads that there are matrix kernels for.
inline lm::model_config matrix_shape() {
  auto c = wide_shape();
  c.layers = 3;
  c.dim = 32;
  c.head_dim = 64;
  c.qk_norm = false;
  return c;
}

/// Of numbers that a codec keeps, in parts of themselves; of int8's, of the largest of a span.
template <class Codec>
constexpr double spacing() {
  if constexpr (std::same_as<Codec, strata::int8_codec>) return 0x1p-7;
  if constexpr (std::same_as<Codec, strata::fp8_codec>) return 0x1p-4;
  return 0;
}

/// Of a distance as `servers::step` gathers it.
template <class Codec = strata::bf16_codec>
double bound(lm::model_config const& c) {
  return 4 * std::sqrt((4 + 10 * c.layers) / 3.) * 0x1p-9 + spacing<Codec>();
}

inline strata::route_plan plan(std::string const& strategy, lm::model_config const& c) {
  auto const map = strata::parse_strategy(strategy, c.classes()).value();
  return strata::make_plan(map, c.classes()).value();
}
/// K of every second layer, V of the first: sets that differ.
inline strata::route_plan plan_apart(lm::model_config const& c) {
  auto const map = [&](char const* text) {
    return strata::parse_strategy(text, c.classes()).value();
  };
  return strata::make_plan(map("every:2"), map("leaders:0"), c.classes()).value();
}

inline std::vector<std::int32_t> text(lm::model_config const& c, std::int32_t count,
                                      std::uint64_t seed) {
  tiny::tokens const drawn(c, 1, count, seed);
  return {drawn.inputs.begin(), drawn.inputs.end()};
}

/// How far logits are apart, as a fraction of their length: in the root of the mean square over
/// rows.
class distance {
 public:
  void add(std::span<float const> got, std::span<double const> expected) {
    double off = 0, size = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      off += std::pow(static_cast<double>(got[i]) - expected[i], 2);
      size += std::pow(expected[i], 2);
    }
    sum_ += off / size;
    ++rows_;
  }
  double value() const { return std::sqrt(sum_ / rows_); }

 private:
  double sum_ = 0;
  int rows_ = 0;
};

/// One sequence's part of a step.
struct part {
  std::size_t sequence = 0;
  std::int32_t count = 1;
  logits wanted = logits::last;
};

/// Setup: a `machine`, and `storage<Codec>(machine, classes, options)` on it.
template <class Setup, class Codec = strata::bf16_codec>
class servers {
 public:
  using machine = typename Setup::machine;
  using storage = typename Setup::template storage<Codec>;
  using device_type = lm::cuda::device_server<machine, storage>;
  using exact_type =
      lm::stack_server<double, strata::contiguous_storage<Codec>, strata::reference_attention>;

  lm::model_config config;
  machine on;
  strata::writable_blocks first_k, first_v;  ///< of layer 0

  servers(lm::model_config const& c, std::int32_t sequences, std::int32_t tokens,
          lm::step_room room)
      : config(c), exact_weights_(c), device_weights_(on, c) {
    fill_weights();
    auto const of_all = sequences * c.layers;
    strata::contiguous_options const o{sequences, tokens, of_all, of_all};
    exact = std::make_unique<exact_type>(exact_weights_,
                                         strata::contiguous_storage<Codec>(c.classes(), o), pool_);
    auto kept = Setup::template make<Codec>(on, c.classes(), o);
    first_k = kept.k_blocks({0}), first_v = kept.v_blocks({0});
    device = std::make_unique<device_type>(on, device_weights_, c, std::move(kept), room);
  }

  /// Opens a sequence on both, under plans that may differ; its text goes on for ever.
  std::size_t open(strata::route_plan const& routes, strata::route_plan const& exact_routes) {
    auto const id = device->open(routes).value();
    REQUIRE(exact->open(exact_routes).value() == id);
    sequences_.push_back({id, text(config, exact->max_tokens() + 8, 10 + sequences_.size())});
    return sequences_.size() - 1;
  }
  std::size_t open(strata::route_plan const& routes) { return open(routes, routes); }
  void close(std::size_t sequence) {
    REQUIRE(device->close(sequences_[sequence].id).ok());
    REQUIRE(exact->close(sequences_[sequence].id).ok());
  }
  strata::sequence_id id(std::size_t sequence) const { return sequences_[sequence].id; }

  /// The next tokens of sequences.
  std::vector<lm::feed> batch(std::vector<part> const& parts) const {
    std::vector<lm::feed> feeds;
    for (auto const& p : parts) {
      auto const& s = sequences_[p.sequence];
      auto const at = static_cast<std::size_t>(device->length(s.id));
      auto const count = static_cast<std::size_t>(p.count);
      feeds.push_back({s.id, std::span(s.text).subspan(at, count), p.wanted});
    }
    return feeds;
  }

  /// A step of both.
  void step(std::vector<part> const& parts, distance& apart) {
    auto const feeds = batch(parts);
    auto const done = device->run(feeds);
    INFO(strata::describe(done).c_str());
    REQUIRE(done.ok());
    REQUIRE(exact->run(feeds).ok());
    auto const got = device->logits();
    auto const expected = exact->logits();
    REQUIRE(got.size() == expected.size());
    auto const vocab = static_cast<std::size_t>(config.vocab);
    for (std::size_t row = 0; row < got.size(); row += vocab)
      apart.add(got.subspan(row, vocab), expected.subspan(row, vocab));
  }

  std::unique_ptr<exact_type> exact;
  std::unique_ptr<device_type> device;

 private:
  struct fed_sequence {
    strata::sequence_id id;
    std::vector<std::int32_t> text;
  };

  void fill_weights() {
    tiny::set_lively_weights(exact_weights_);
    std::vector<strata::bfloat16> rounded;
    for (auto const& e : exact_weights_.table().entries)
      if (e.role != lm::tensor_role::norm)
        for (auto& w : exact_weights_.tensor(e)) w *= .6;  // so that roundings stay small
    for (auto& w : exact_weights_.values()) {
      rounded.push_back(strata::to_bfloat16(static_cast<float>(w)));
      w = static_cast<double>(strata::to_float(rounded.back()));
    }
    on.upload(std::span<strata::bfloat16 const>(rounded), device_weights_.data());
    on.wait();
  }

  strata::thread_pool pool_{1};
  lm::parameters<double> exact_weights_;
  lm::cuda::device_weights<machine> device_weights_;
  std::vector<fed_sequence> sequences_;
};

/// A prompt in chunks, of which only the last wants logits; a few tokens one by one; a chunk of
/// which all do.
template <class Servers>
double distance_of_text(Servers& s, std::size_t sequence) {
  distance apart;
  auto const take = [&](std::int32_t count, logits wanted) {
    s.step({{sequence, count, wanted}}, apart);
  };
  take(5, logits::none);
  take(1, logits::none);
  take(7, logits::last);
  for (int i = 0; i < 4; ++i) take(1, logits::last);
  take(4, logits::all);
  return apart.value();
}

inline lm::step_room const text_room{8, 4};

/// Every plan, each alone; and the plan of another sequence is none that passes.
template <class Setup, class Codec = strata::bf16_codec>
void check_texts(lm::model_config const& c) {
  auto const most = bound<Codec>(c);
  servers<Setup, Codec> s(c, 1, 32, text_room);
  std::vector<strata::route_plan> const plans = {plan("full", c), plan("every:2", c),
                                                 plan("leaders:0", c), plan_apart(c)};
  for (std::size_t i = 0; i < plans.size(); ++i) {
    CAPTURE(i);
    auto const right = s.open(plans[i]);
    CHECK(distance_of_text(s, right) < most);
    s.close(right);
    auto const wrong = s.open(plans[i], plans[(i + 1) % plans.size()]);
    CHECK(distance_of_text(s, wrong) > 4 * most);
    s.close(wrong);
  }
}

/// Chunks and tokens of sequences of all plans, some resting, of which rows want all, one or no
/// logits.
template <class Setup, class Codec = strata::bf16_codec>
void check_mixed(lm::model_config const& c) {
  auto const most = bound<Codec>(c);
  servers<Setup, Codec> s(c, 4, 32, {24, 12});
  for (auto const* strategy : {"full", "every:2", "leaders:0"}) s.open(plan(strategy, c));
  s.open(plan_apart(c));
  std::vector<std::vector<part>> const steps = {
      {{0, 9, logits::last}, {1, 4, logits::none}, {2, 6, logits::last}, {3, 5, logits::all}},
      {{3, 1}, {1, 7, logits::all}, {2, 8, logits::none}},
      {{2, 3, logits::last}, {0, 1}, {1, 2, logits::last}},
      {{0, 1}, {1, 1}, {2, 1}, {3, 1}},
      {{0, 4, logits::none}, {3, 3, logits::none}},
      {{3, 2, logits::last}, {0, 2, logits::none}, {2, 1}}};
  distance apart;
  for (auto const& parts : steps) s.step(parts, apart);
  CHECK(apart.value() < most);
}

/// One token each for some of four sequences of three plans, that come and go, so that steps are
/// recorded and replayed; the same again without recordings has the same bits.
template <class Setup, class Codec = strata::bf16_codec>
void check_replays(lm::model_config const& c) {
  auto const most = bound<Codec>(c);
  servers<Setup, Codec> replaying(c, 4, 32, {16, 4}), plain(c, 4, 32, {16, 4});
  plain.device->use_recordings(false);
  distance apart, unused;
  auto const step = [&](std::vector<part> const& parts) {
    replaying.step(parts, apart);
    plain.step(parts, unused);
    CHECK(std::ranges::equal(replaying.device->logits(), plain.device->logits()));
  };
  auto const both = [&](auto const& act) { act(replaying), act(plain); };
  both([&](auto& s) {
    for (auto const* strategy : {"every:2", "full", "leaders:0"}) s.open(plan(strategy, c));
  });
  step({{0, 5}, {1, 3}, {2, 8}});
  for (std::size_t const turn : {0, 1, 2, 0, 1, 2}) {
    step({{turn}});                     // three sets of layers
    step({{1}, {(turn + 1) % 2 * 2}});  // all layers, whoever goes along
  }
  both([&](auto& s) { s.close(1), s.open(plan("full", c)); });  // another length, another row
  step({{3, 9}, {0, 2, logits::none}});
  for (int i = 0; i < 3; ++i) step({{3, 1, logits::all}, {2}});
  step({{0}});
  CHECK(apart.value() < most);
  // Of one sequence: every set of layers from its second time on, three and the last; of two: all
  // but the first.
  CHECK(replaying.device->replays() == 3 + 1 + 5 + 3);
  CHECK(plain.device->replays() == 0);
}

/// The first `tokens` tokens that a sequence keeps of K, or V, of layer 0: [tokens, kv_dim].
template <class Servers>
std::vector<strata::bfloat16> kept(Servers& s, strata::sequence_id id, std::int32_t tokens,
                                   bool of_k) {
  auto const& storage = s.device->storage();
  auto const row = of_k ? storage.k_row(id, {0}) : storage.v_row(id, {0});
  auto const& blocks = of_k ? s.first_k : s.first_v;
  REQUIRE(row >= 0);
  std::vector<strata::bfloat16> out(static_cast<std::size_t>(tokens * s.config.kv_dim()));
  auto const* const first = reinterpret_cast<strata::bfloat16 const*>(blocks.at(row, 0, 0));
  s.on.download(first, std::span(out));
  s.on.wait();
  return out;
}

/// That there is no zero, nor anything but numbers of variance 1 about 0.
inline void check_normal(std::vector<strata::bfloat16> const& x) {
  double sum = 0, squares = 0;
  for (auto const e : x) {
    auto const number = static_cast<double>(strata::to_float(e));
    REQUIRE(number != 0);
    sum += number;
    squares += number * number;
  }
  auto const count = static_cast<double>(x.size());
  CHECK(std::abs(sum / count) < 6 / std::sqrt(count));
  CHECK(std::abs(squares / count - 1) < 6 / std::sqrt(count));
}

/// That no more numbers are the same than chance makes: one of 700.
inline void check_apart(std::span<strata::bfloat16 const> a, std::span<strata::bfloat16 const> b) {
  REQUIRE(a.size() == b.size());
  std::size_t same = 0;
  for (std::size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
  CHECK(same < 1 + a.size() / 50);
}

/// A cache of noise: the same as on the host up to its numbers, which are the device's own.
template <class Setup>
void check_noise(lm::model_config const& c) {
  servers<Setup> s(c, 2, 40, {8, 1});
  auto const id = s.device->open(plan("every:2", c)).value();
  auto const other = s.device->open(plan("full", c)).value();
  REQUIRE(s.device->fill_with_noise(id, 30).ok());
  REQUIRE(s.device->fill_with_noise(other, 30).ok());
  CHECK(s.device->length(id) == 30);
  std::vector<std::vector<strata::bfloat16>> const all = {
      kept(s, id, 30, true), kept(s, id, 30, false), kept(s, other, 30, true),
      kept(s, other, 30, false)};
  auto const chunk = static_cast<std::size_t>(8 * c.kv_dim());  // of a step
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(i);
    std::span const x(all[i]);
    check_normal(all[i]);
    check_apart(x.first(chunk), x.subspan(chunk, chunk));
    for (std::size_t j = 0; j < i; ++j) check_apart(x, all[j]);
  }
  std::vector<std::int32_t> const token = {3};
  REQUIRE(s.device->run(lm::feed{id, token}).ok());
  for (auto const logit : s.device->logits()) CHECK(std::isfinite(logit));
  auto const refused = s.device->fill_with_noise(id, 10);
  CHECK(refused.code == strata::errc::sequence_full);
  CHECK(s.device->length(id) == 31);
  REQUIRE(s.device->fill_with_noise(id, 9).ok());
}

}  // namespace server_cases
