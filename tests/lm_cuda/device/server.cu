// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The server's cases on a device: its stream, products, attention, and graphs where the host's
// machine keeps lists. And the rates that a device is
// measured by.
#include "../server_cases.hpp"

#include <strata/cuda/storage.cuh>

#include "cuda/device_rates.hpp"
#include "cuda/serving_machine.cuh"

namespace {

using namespace server_cases;

struct device_setup {
  using machine = lm::cuda::cuda_serving_machine<strata::cuda::basic_attention<64>>;
  template <class Codec>
  using storage = strata::cuda::device_storage<strata::contiguous_storage<Codec>>;
  template <class Codec>
  static storage<Codec> make(machine& m, strata::kv_classes const& classes,
                             strata::contiguous_options const& o) {
    return storage<Codec>::make(m.stream().get(), classes, o).value();
  }
};

}  // namespace

TEST_CASE("device server: texts and batches as on the host, heads odd and of matrix kernels") {
  for (auto const& c : {odd_shape(), optional_shape(), wide_shape(), matrix_shape()}) {
    check_texts<device_setup>(c);
    check_mixed<device_setup>(c);
  }
}
TEST_CASE("device server: graphs serve other sequences, plans and lengths") {
  for (auto const& c : {odd_shape(), matrix_shape()}) check_replays<device_setup>(c);
}
TEST_CASE("device server: noise fills a cache, all of it or nothing") {
  check_noise<device_setup>(matrix_shape());
}

TEST_CASE("device rates: those of a device") {
  CHECK(lm::cuda::read_rate() > 1e10);
  CHECK(lm::cuda::product_rate() > 1e12);
  auto const free = lm::cuda::free_memory();
  CHECK(free > 0);
  constexpr std::int64_t some = std::int64_t{1} << 30;
  {
    lm::cuda::device_stream const stream;
    lm::cuda::device_buffer<std::byte> const taken(stream, some);
    CHECK(lm::cuda::free_memory() <= free - some);
  }
  CHECK(lm::cuda::free_memory() > free - some / 2);  // nothing waited, and the pool gave it back
}
