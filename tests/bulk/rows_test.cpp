// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of bytes on every system of the host: what moves, what is refused, and what a refusal leaves
// as it was.
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <strata/bulk/compact.hpp>
#include <strata/bulk/gather.hpp>
#include <strata/bulk/select.hpp>

#include "bulk/row_checks.hpp"
#include "bulk/systems.hpp"
#include "support/print.hpp"

using namespace bulk_test;
using strata::errc;
using strata::status;
using strata::tensor;

TEST_CASE("gathered and scattered rows are those of a loop, byte for byte") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
      CAPTURE(seed);
      CHECK(check_gather<std::int32_t>(system, seed) == "");
      CHECK(check_gather<std::int64_t>(system, seed) == "");
      CHECK(check_scatter<std::int32_t>(system, seed) == "");
      CHECK(check_scatter<std::int64_t>(system, seed) == "");
    }
  });
}

TEST_CASE("compacted rows are those of a loop, in place and elsewhere, by flags and by a list") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
      CAPTURE(seed);
      CHECK(check_compact(system, seed) == "");
    }
  });
}

TEST_CASE("rows in place that do not fit into temporary memory at once") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    CHECK(check_compact_of_much(system) == "");
    // And longer than a thread copies at once.
    CHECK(check_compact(system, {5, 70'000, 70'001, 1}, {1, 0, 0, 1, 1}, 4) == "");
  });
}

TEST_CASE("selected rows ascend") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      CAPTURE(seed);
      CHECK(check_select<std::int32_t>(system, seed) == "");
      CHECK(check_select<std::int64_t>(system, seed) == "");
      CHECK(check_conditions(system, seed) == "");
    }
  });
}

TEST_CASE("what rows cannot be is refused, and nothing has moved") {
  std::vector<float> from(40, 1), to(40, 2);
  std::vector<std::int32_t> const list = {0, 1, 2};
  auto const read = bulk::rows_of(std::as_const(from).data(), 10, 4);
  auto const written = bulk::rows_of(to.data(), 10, 4);
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  for_each_host_system([&](auto const& system) {
    auto const gather = [&](bulk::byte_rows const& a, bulk::writable_rows const& b) {
      return bulk::gather(system.policy, a, list, b);
    };
    auto const with = [&](auto rows, auto member, auto value) {
      rows.*member = value;
      return rows;
    };
    using reader = bulk::byte_rows;
    using writer = bulk::writable_rows;
    CHECK(gather(with(read, &reader::count, -1), written) ==
          status{errc::value_too_small, {}, -1, 0});
    CHECK(gather(with(read, &reader::width, -4), written) ==
          status{errc::value_too_small, {}, -4, 0});
    CHECK(gather(with(read, &reader::stride, 15), written) ==
          status{errc::value_too_small, {}, 15, 16});
    CHECK(gather(with(read, &reader::stride, most / 4), written).code == errc::size_overflow);
    CHECK(gather(with(read, &reader::data, nullptr), written) == null_pointer(tensor::rows_read));
    CHECK(gather(read, with(written, &writer::data, nullptr)) ==
          null_pointer(tensor::rows_written));
    CHECK(gather(read, with(written, &writer::width, 12)) ==
          status{errc::row_width_mismatch, {}, 12, 16});
    CHECK(gather(read, with(written, &writer::count, 2)) ==
          status{errc::value_too_small, {}, 2, 3});
    CHECK(gather(written, written) == status{errc::rows_overlap});
    CHECK(bulk::gather(system.policy, read, std::span<std::int32_t const>(list.data(), 0), {}) ==
          status{errc::row_width_mismatch, {}, 0, 16});
    CHECK(to == std::vector<float>(40, 2));
  });
}

TEST_CASE("lists that are wrong are refused where the host can look") {
  std::vector<std::int32_t> values(10), before(10);
  for (std::int32_t i = 0; i < 10; ++i) values[as_size(i)] = before[as_size(i)] = i;
  std::vector<std::int32_t> other(10, -7);
  auto const rows = bulk::rows_of(values.data(), 10);
  auto const elsewhere = bulk::rows_of(other.data(), 10);
  for_each_host_system([&](auto const& system) {
    auto const& policy = system.policy;
    using list = std::vector<std::int32_t>;
    status const beyond{errc::value_out_of_range, {}, 10, 10};
    CHECK(bulk::gather(policy, rows, list{1, 10}, elsewhere) == beyond);
    CHECK(bulk::scatter(policy, rows, list{1, 10}, elsewhere) == beyond);
    CHECK(bulk::compact_listed(policy, rows, list{1, 10}, rows) == beyond);
    CHECK(bulk::check_list(policy, list{-1, 3, 10, 5}, 10) == beyond);
    CHECK(bulk::check_list(policy, list{-1, 3, 9, 5}, 10).ok());
    CHECK(bulk::check_list(policy, list{}, 0).ok());
    CHECK(bulk::compact_listed(policy, rows, list{2, 2}, rows) ==
          status{errc::list_not_ascending, {}, 2, 2});
    CHECK(bulk::compact_listed(policy, rows, list{5, 2}, rows) ==
          status{errc::list_not_ascending, {}, 2, 5});
    CHECK(bulk::compact_listed(policy, rows, list{-1, 2}, rows) ==
          status{errc::list_not_ascending, {}, -1, -1});
    // Too many for where they go, known only once they are counted.
    std::vector<std::uint8_t> const all(10, 1);
    CHECK(bulk::compact(policy, rows, all, bulk::rows_of(other.data(), 9)).state() ==
          status{errc::value_too_small, {}, 9, 10});
    CHECK(bulk::compact(policy, rows, std::vector<std::uint8_t>(9, 1), rows).state() ==
          status{errc::value_out_of_range, {}, 9, 10});
    CHECK(bulk::compact(policy, rows, all, bulk::rows_of(values.data() + 1, 9)).state() ==
          status{errc::rows_overlap});
    list room(9);
    CHECK(bulk::select(policy, all, room).state() == status{errc::value_too_small, {}, 9, 10});
    CHECK(values == before);
    CHECK(other == list(10, -7));
  });
}
