// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <type_traits>
#include <vector>

#include <strata/geometry.hpp>

#include "support/models.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::kv_classes;
using strata::layer_kind;
using strata::status;
using strata::use;

static_assert(std::is_trivially_copyable_v<kv_classes>);

namespace {

constexpr strata::layer_id layer_that_reads{7}, layer_that_is_read{4};

status ask(layer_kind const& reading, layer_kind const& read, use purpose) {
  return strata::may_read(reading, layer_that_reads, read, layer_that_is_read, purpose);
}

/// Refused with this code for both uses, in both directions.
void check_refused(layer_kind const& a, layer_kind const& b, errc code) {
  for (auto const purpose : {use::training, use::serving}) {
    CHECK(ask(a, b, purpose) == status{code, layer_that_reads, layer_that_is_read.index, 0});
    CHECK(ask(b, a, purpose) == status{code, layer_that_reads, layer_that_is_read.index, 0});
  }
}

layer_kind of_width(std::int32_t kv_heads) {
  layer_kind kind;
  kind.kv.kv_heads = kv_heads;
  return kind;
}

}  // namespace

TEST_CASE("layers of one kind may read each other") {
  for (auto const purpose : {use::training, use::serving}) {
    CHECK(ask({}, {}, purpose).ok());
    CHECK(ask(support::local_attention(), support::local_attention(), purpose).ok());
  }
}

TEST_CASE("every part of the KV class separates layers") {
  auto const differs_in = [](auto change) {
    layer_kind other;
    change(other.kv);
    check_refused({}, other, errc::class_mismatch);
    CHECK(ask(other, other, use::serving).ok());
  };
  differs_in([](strata::kv_class& c) { c.kv_heads = 2; });
  differs_in([](strata::kv_class& c) { c.k_dim = 32; });
  differs_in([](strata::kv_class& c) { c.v_dim = 32; });
  differs_in([](strata::kv_class& c) { c.rope.theta = 1e6; });
  differs_in([](strata::kv_class& c) { c.rope.dims = 32; });
  differs_in([](strata::kv_class& c) { c.rope.scaling = 8; });
  differs_in([](strata::kv_class& c) { c.rope.interleaved = true; });
  differs_in([](strata::kv_class& c) { c.rope.frequencies = 7; });
  differs_in([](strata::kv_class& c) { c.capture = strata::capture_stage::before_rope; });
}

TEST_CASE("a layer of another pipeline stage is out of reach") {
  check_refused({}, support::on_stage(1), errc::stage_mismatch);
}

TEST_CASE("a layer without K/V neither reads nor is read") {
  check_refused({}, support::linear_attention(), errc::source_without_kv);
  check_refused(support::linear_attention(), support::linear_attention(), errc::source_without_kv);
}

TEST_CASE("while serving, a source must keep what the reader's window sees") {
  auto const narrow = support::sliding_window(63), wide = support::sliding_window(64);
  CHECK(ask(narrow, wide, use::serving).ok());
  CHECK(ask(wide, wide, use::serving).ok());
  CHECK(ask(wide, support::full_attention(), use::serving).ok());
  CHECK(ask(wide, narrow, use::serving) ==
        status{errc::window_too_small, layer_that_reads, layer_that_is_read.index, 63});
  CHECK(ask(support::full_attention(), wide, use::serving) ==
        status{errc::window_too_small, layer_that_reads, layer_that_is_read.index, 64});
}

TEST_CASE("while training, windows are the reader's own business") {
  auto const narrow = support::sliding_window(63);
  CHECK(ask(support::full_attention(), narrow, use::training).ok());
  CHECK(ask(narrow, support::full_attention(), use::training).ok());
}

TEST_CASE("classes answer what kind each layer is of") {
  for (auto const& m : support::all_models()) {
    auto const classes = m.classes();
    CAPTURE(m.name);
    REQUIRE(classes.num_layers() == m.num_layers());
    bool same = true;
    for (std::int32_t l = 0; l < m.num_layers(); ++l)
      same = same && classes[{l}] == m.layers[static_cast<std::size_t>(l)];
    CHECK(same);
  }
}

TEST_CASE("classes keep each kind once, in order of appearance") {
  auto const classes = support::gemma_like(30).classes();
  CHECK(classes.num_kinds() == 2);
  CHECK(classes.kind(0) == support::local_attention());
  CHECK(classes.kind(1) == support::full_attention());
}

TEST_CASE("a uniform model is one kind, however it is described") {
  auto const uniform = kv_classes::uniform(30, of_width(8));
  auto const listed = kv_classes::make(std::vector<layer_kind>(30, of_width(8)));
  REQUIRE(listed.ok());
  CHECK(uniform.num_layers() == 30);
  CHECK(uniform.num_kinds() == 1);
  CHECK(listed->num_kinds() == 1);
  for (int l = 0; l < 30; ++l) CHECK(uniform[{l}] == (*listed)[{l}]);
}

TEST_CASE("readable asks for the kinds of the two layers") {
  auto const classes = support::crazy_quilt().classes();
  CHECK(classes.readable({4}, {1}, use::serving).ok());
  CHECK(classes.readable({4}, {3}, use::training).ok());
  CHECK(classes.readable({4}, {3}, use::serving) == status{errc::window_too_small, {4}, 3, 64});
  CHECK(classes.readable({6}, {1}, use::serving) == status{errc::class_mismatch, {6}, 1, 0});
  CHECK(classes.readable({8}, {4}, use::serving) == status{errc::stage_mismatch, {8}, 4, 0});
  CHECK(classes.readable({4}, {0}, use::serving) == status{errc::source_without_kv, {4}, 0, 0});
}

TEST_CASE("a model has 1 to 256 layers") {
  CHECK(kv_classes::make({}).state() == status{errc::no_layers, {}, 0, 1});
  CHECK(kv_classes::make(std::vector<layer_kind>(1)).ok());
  CHECK(kv_classes::make(std::vector<layer_kind>(256)).ok());
  CHECK(kv_classes::make(std::vector<layer_kind>(257)).state() ==
        status{errc::too_many_layers, {}, 257, 256});
  CHECK(kv_classes{}.check() == status{errc::no_layers, {}, 0, 1});
  CHECK(kv_classes::uniform(-3).check() == status{errc::no_layers, {}, -3, 1});
  CHECK(kv_classes::uniform(1).check().ok());
  CHECK(kv_classes::uniform(256).check().ok());
  CHECK(kv_classes::uniform(257).check() == status{errc::too_many_layers, {}, 257, 256});
}

TEST_CASE("sizes of a layer are at least 1 and at most 65536, a window at least 1") {
  auto const checked = [](auto change) {
    std::vector<layer_kind> layers(3);
    change(layers[1]);
    return kv_classes::make(layers)->check();
  };
  auto const refused = [](std::int64_t value) {
    return status{errc::bad_layer_kind, {1}, value, 65536};
  };
  for (auto const bad : {0, -1, 65537}) {
    CHECK(checked([&](layer_kind& k) { k.kv.kv_heads = bad; }) == refused(bad));
    CHECK(checked([&](layer_kind& k) { k.kv.k_dim = bad; }) == refused(bad));
    CHECK(checked([&](layer_kind& k) { k.kv.v_dim = bad; }) == refused(bad));
  }
  CHECK(checked([](layer_kind& k) { k.window = 0; }).code == errc::bad_layer_kind);
  CHECK(checked([](layer_kind& k) { k.window = 1; }).ok());
  CHECK(checked([](layer_kind& k) { k.kv = {65536, 65536, 65536}; }).ok());
  CHECK(checked([](layer_kind& k) { k.kv.kv_heads = 0, k.has_kv = false; }).ok());
}

TEST_CASE("a model has at most 16 kinds of layer") {
  std::vector<layer_kind> layers;
  for (std::int32_t i = 0; i < kv_classes::max_kinds; ++i) layers.push_back(of_width(i + 1));
  layers.push_back(of_width(1));  // a kind that was there before takes no room
  auto const full = kv_classes::make(layers);
  REQUIRE(full.ok());
  CHECK(full->num_kinds() == 16);
  CHECK((*full)[{15}].kv.kv_heads == 16);
  CHECK((*full)[{16}].kv.kv_heads == 1);

  layers.push_back(of_width(17));
  CHECK(kv_classes::make(layers).state() == status{errc::too_many_layer_kinds, {17}, 17, 16});
}
