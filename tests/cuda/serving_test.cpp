// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving on a device, its launches run on the host.
#include <doctest/doctest.h>

#include <strata/attention/reference.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/detail/attention_on.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/stack.hpp>

#include "support/deferred_device.hpp"
#include "support/device_serving.hpp"
#include "support/device_steps.hpp"
#include "support/lent_memory.hpp"
#include "support/simt_attention.hpp"

namespace {

/// Whose memory the host is not to touch.
struct elsewhere : strata::paged_storage<strata::f32_codec> {
  using paged_storage::paged_storage;
  static constexpr bool on_device = true;
};

}  // namespace

TEST_CASE("cuda serving: chunks and tokens of mixed depths, as on the host") {
  support::serving::check(support::simt_attention<64>());
}
TEST_CASE("cuda serving: fp8, every head with a scale of its own") {
  support::serving::check_head_scales(support::simt_attention<64>());
}

TEST_CASE("cuda serving: in an engine's memory") {
  support::serving::check_borrowing(support::simt_attention<64>());
}

TEST_CASE("cuda serving: the host's store writes nothing where K and V are a device's") {
  static_assert(strata::on_device<elsewhere> &&
                !strata::on_device<strata::paged_storage<strata::f32_codec>>);
  using borrowed = strata::borrowed_storage<strata::f32_codec>;
  static_assert(strata::on_device<strata::cuda::borrowed_device_storage<borrowed>> &&
                !strata::on_device<borrowed>);
  support::serving::sequences<elsewhere> device;
  auto step = device.stack.begin({device.ids[0]});
  for (strata::layer_id l{0}; l.index < support::serving::layers; ++l.index) {
    for (auto const& run : step.k_writers(l)) {
      CHECK(run.destination().on_device);
      if (l.index > 0) run.mark_stored();  // what a launch would have said
    }
    for (auto const& run : step.v_writers(l)) run.mark_stored();
  }
  CHECK(step.commit().code == strata::errc::rows_not_stored);
}

TEST_CASE("cuda serving: forks on a device that is late, nobody waiting between steps") {
  using late_serving_device = support::deferred_device<support::simt_launcher>;
  using late_mirror_type = strata::cuda::detail::step_mirror_on<late_serving_device>;
  using kernel_type = strata::cuda::detail::attention_on<late_serving_device::launcher_type, 64>;
  using storage = strata::paged_storage<strata::bf16_codec>;
  using server = strata::stack<storage, strata::reference_attention>;
  using servers = support::serving::forking_servers<server, late_mirror_type, kernel_type>;
  support::lent_memory<storage> const memory(support::serving::model, servers::room);
  late_serving_device const late;
  server device(memory.make(), {});
  auto mirror = late_mirror_type::make(late, device.storage(), servers::mirror_bytes).value();
  kernel_type kernel;
  kernel.launcher = late.launcher();
  kernel.multiprocessors = 2;
  servers both(device, mirror, kernel);
  both.run();
  CHECK(late.stream->num_waiting() > 0);
  late.stream->finish();
  CHECK(both.compare_all() < 0.02);
}
