// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving on a device, its launches run on the host.
#include <doctest/doctest.h>

#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>

#include "support/device_serving.hpp"
#include "support/simt_attention.hpp"

namespace {

using namespace support::serving;

/// Whose memory the host is not to touch.
struct elsewhere : strata::paged_storage<strata::f32_codec> {
  using paged_storage::paged_storage;
  static constexpr bool on_device = true;
};

}  // namespace

TEST_CASE("cuda serving: chunks and tokens of mixed depths, as on the host") {
  check(support::simt_attention<64>());
}
TEST_CASE("cuda serving: fp8, every head with a scale of its own") {
  check_head_scales(support::simt_attention<64>());
}

TEST_CASE("cuda serving: in an engine's memory") { check_borrowing(support::simt_attention<64>()); }

TEST_CASE("cuda serving: the host's store writes nothing where K and V are a device's") {
  static_assert(strata::on_device<elsewhere> &&
                !strata::on_device<strata::paged_storage<strata::f32_codec>>);
  using borrowed = strata::borrowed_storage<strata::f32_codec>;
  static_assert(strata::on_device<strata::cuda::borrowed_device_storage<borrowed>> &&
                !strata::on_device<borrowed>);
  sequences<elsewhere> device;
  auto step = device.stack.begin({device.ids[0]});
  for (layer_id l{0}; l.index < layers; ++l.index) {
    for (auto const& run : step.k_writers(l)) {
      CHECK(run.destination().on_device);
      if (l.index > 0) run.mark_stored();  // what a launch would have said
    }
    for (auto const& run : step.v_writers(l)) run.mark_stored();
  }
  CHECK(step.commit().code == strata::errc::rows_not_stored);
}
