// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The server on a device, run on the host: what it computes, refuses, records and multiplies.
#include "server_cases.hpp"

#include <cstdio>
#include <string>

#include "host_serving_machine.hpp"
#include "support/capture.hpp"

namespace {

using namespace server_cases;

/// Whose memory the host's own `store` is not to touch.
template <class Codec>
struct elsewhere : strata::contiguous_storage<Codec> {
  explicit elsewhere(strata::contiguous_storage<Codec> s)
      : strata::contiguous_storage<Codec>(std::move(s)) {}
  static constexpr bool on_device = true;
};

struct host_setup {
  using machine = bodies::host_serving_machine;
  template <class Codec>
  using storage = elsewhere<Codec>;
  template <class Codec>
  static storage<Codec> make(machine&, strata::kv_classes const& classes,
                             strata::contiguous_options const& o) {
    return storage<Codec>(strata::contiguous_storage<Codec>(classes, o));
  }
};
using host_servers = servers<host_setup>;

}  // namespace

TEST_CASE("device server: chunks, tokens and tails are the host's, up to roundings") {
  for (auto const& c : {odd_shape(), optional_shape(), wide_shape()}) check_texts<host_setup>(c);
}

TEST_CASE("device server: plans, lengths and wishes mixed in one batch") {
  for (auto const& c : {odd_shape(), optional_shape(), wide_shape()}) check_mixed<host_setup>(c);
}

TEST_CASE("device server: caches of int8 and fp8") {
  check_texts<host_setup, strata::int8_codec>(wide_shape());
  check_mixed<host_setup, strata::int8_codec>(optional_shape());
  check_texts<host_setup, strata::fp8_codec>(wide_shape());
  check_mixed<host_setup, strata::fp8_codec>(odd_shape());
}

TEST_CASE("device server: replays serve other sequences, plans and lengths") {
  for (auto const& c : {odd_shape(), wide_shape()}) check_replays<host_setup>(c);
}

TEST_CASE("device server: noise fills a cache, all of it or nothing") {
  check_noise<host_setup>(wide_shape());
}

TEST_CASE("device server: the library's attention, its kernels thread by thread") {
  auto const c = matrix_shape();
  host_servers s(c, 2, 32, {20, 20});
  s.on.library_attention = true;
  auto const one = s.open(plan("every:2", c)), other = s.open(plan("full", c));
  distance apart;
  s.step({{one, 17, logits::all}, {other, 3}}, apart);
  for (int i = 0; i < 3; ++i) s.step({{one}, {other}}, apart);
  CHECK(s.device->replays() == 2);
  CHECK(apart.value() < bound(c));
}

TEST_CASE("device server: adjacent weights are one product") {
  for (auto const& c : {odd_shape(), optional_shape(), wide_shape(), matrix_shape()}) {
    lm::parameters<float> const weights(c);
    auto const& w = weights.weights().layer.back();
    auto const dim = std::int64_t{c.dim};
    CHECK(lm::kv_is_one_product(c) == (w.wv == w.wk + c.kv_dim() * dim));
    CHECK(lm::qkv_is_one_product(c) ==
          (w.wv == w.wk + c.kv_dim() * dim && w.wk == w.wq + c.q_dim() * dim));
    CHECK(lm::mlp_is_one_product(c) == (w.w_up == w.w_gate + c.mlp * dim));
  }
  auto const products = [](lm::model_config const& c, std::string const& strategy) {
    host_servers s(c, 1, 32, text_room);
    auto const it = s.open(plan(strategy, c));
    distance unused;
    auto const before = s.on.products;
    s.step({{it}}, unused);
    return s.on.products - before;
  };
  auto const wide = wide_shape(), odd = odd_shape();
  CHECK(products(wide, "full") == 1 + 4 * 4);     // QKV, output, gate and up, down; logits
  CHECK(products(wide, "every:2") == 1 + 4 * 4);  // Q alone is one, too
  CHECK(products(odd, "full") == 1 + 4 * 7);
  CHECK(products(odd, "every:2") == 1 + 4 * 5 + 2 * 2);
}

TEST_CASE("device server: what it refuses has not happened") {
  auto const c = wide_shape();
  host_servers s(c, 2, 16, {8, 3}), calm(c, 2, 16, {8, 3});
  auto const it = s.open(plan("every:2", c));
  REQUIRE(calm.open(plan("every:2", c)) == it);
  distance unused;
  auto const step = [&](part const& next) {
    s.step({next}, unused);
    calm.step({next}, unused);
    CHECK(std::ranges::equal(s.device->logits(), calm.device->logits()));
  };
  step({it, 6});
  auto& server = *s.device;
  auto const id = s.id(it);
  auto const words = text(c, 20, 1);
  std::span<std::int32_t const> const all(words);
  std::vector<float> const kept(server.logits().begin(), server.logits().end());
  auto const refuses = [&](lm::feed const& fed, strata::errc code, std::int64_t value,
                           std::int64_t most) {
    auto const s1 = server.run(fed);
    CHECK(s1.code == code);
    CHECK(s1.value == value);
    CHECK(s1.bound == most);
    CHECK(server.length(id) == 6);
    CHECK(std::ranges::equal(server.logits(), kept));
  };
  using strata::errc;
  std::vector<std::int32_t> const unknown = {0, c.vocab}, negative = {-1};
  refuses({id, unknown}, errc::value_out_of_range, c.vocab, c.vocab - 1);
  refuses({id, negative}, errc::value_out_of_range, -1, c.vocab - 1);
  refuses({id, all.first(9)}, errc::too_many_rows, 9, 8);
  refuses({id, all.first(4), logits::all}, errc::too_many_rows, 4, 3);
  CHECK(server.run(lm::feed{{7}, all.first(1)}).code == errc::unknown_sequence);
  std::vector<lm::feed> const twice = {{id, all.first(1)}, {id, all.first(1)}};
  CHECK(server.run(twice).code == errc::duplicate_sequence);

  // A device that fails half way, and one that fails at the end.
  s.on.attends_to_fail = 2;
  auto const failed = server.run(lm::feed{id, all.first(3)});
  CHECK(failed.code == errc::device_failure);
  CHECK(failed.value == 700);
  CHECK(failed.layer.index == 1);
  s.on.waits_to_fail = 1;
  auto const late = server.run(lm::feed{id, all.first(1)});
  CHECK(late.code == errc::device_failure);
  CHECK(late.value == 719);
  CHECK(server.length(id) == 6);
  for (int i = 0; i < 3; ++i) step({it});
  s.on.attends_to_fail = 1;  // a replay asks for no attention any more
  step({it});
  s.on.attends_to_fail = 0;
  step({it, 3, logits::all});
  auto const full = server.run(lm::feed{id, all.first(4)});
  CHECK(full.code == errc::sequence_full);
  CHECK(full.value == 17);
  CHECK(full.bound == 16);
}

TEST_CASE("device server: the sentence of its first failure is told, once") {
  auto const c = wide_shape();
  host_servers s(c, 1, 16, {8, 3});
  auto const it = s.open(plan("full", c));
  auto const next = s.batch({{it}});
  support::capture errors(stderr);
  s.on.waits_to_fail = 1;
  auto const first = s.device->run(next);
  s.on.waits_to_fail = 1;
  auto const second = s.device->run(next);
  auto const told = errors.text();
  CHECK(first.code == strata::errc::device_failure);
  CHECK(second.code == strata::errc::device_failure);
  // A sanitizer may have spoken, too: of the fibers.
  auto const at = told.find("device: ");
  REQUIRE(at != std::string::npos);
  CHECK(told.substr(at) == "device: a wait\n");
}

TEST_CASE("device server: a recording that fails is made again") {
  auto const c = wide_shape();
  host_servers s(c, 1, 16, {8, 3});
  auto const it = s.open(plan("full", c));
  distance apart;
  s.step({{it}}, apart);
  s.on.attends_to_fail = 3;
  CHECK(s.device->run(s.batch({{it}})).code == strata::errc::device_failure);
  CHECK(s.device->length(s.id(it)) == 1);
  for (int i = 0; i < 8; ++i) s.step({{it}}, apart);
  CHECK(s.device->replays() == 8);
  CHECK(apart.value() < bound(c));
}
