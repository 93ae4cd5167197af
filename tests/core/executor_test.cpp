// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include <strata/executor.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::share;
using strata::status;

TEST_CASE("a share is one of those there are") {
  for (std::int32_t nth = 1; nth < 5; ++nth)
    for (std::int32_t ith = 0; ith < nth; ++ith) CHECK(check(share{ith, nth}).ok());
  for (auto const& bad : {share{0, 0}, {0, -1}, {-1, 2}, {2, 2}, {5, 2}, {-3, -2}})
    CHECK(check(bad) == status{errc::bad_share, {}, bad.ith, bad.nth});
  static_assert(check(share{}).ok() && !check(share{1, 1}).ok());
  CHECK(std::string(describe(check(share{5, 2})).c_str()) ==
        "there is no share 5 of 2; they are numbered from 0");
}

TEST_CASE("shares are adjacent and leave nothing out") {
  for (std::int64_t const count : {0, 1, 7, 1000})
    for (std::int32_t nth = 1; nth < 9; ++nth) {
      CHECK(share{0, nth}.begin(count) == 0);
      CHECK(share{nth - 1, nth}.end(count) == count);
      for (std::int32_t ith = 1; ith < nth; ++ith)
        CHECK(share{ith - 1, nth}.end(count) == share{ith, nth}.begin(count));
    }
}
