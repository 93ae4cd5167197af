// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Shrinking in the middle and reusing a subset, against one sequence that does it by hand.
#include <string>

#include "served.hpp"

#include "depth_change.hpp"

using served::text_of;

namespace {

using changing = lm::depth_change<double, served::storage, strata::reference_attention>;

/// The losses of a window's second half, one token at a time; leaders go before token `at`.
std::vector<double> losses_across_the_change(lm::parameters<double> const& model,
                                             lm::window const& w, strata::route_plan const& before,
                                             strata::route_plan const& after, std::int32_t at) {
  strata::thread_pool pool(1);
  served::exact_server server(model, served::room(model.config(), 1, w.inputs), pool);
  auto const id = served::open(server, before);
  std::vector<double> losses;
  for (std::int32_t i = 0; i < w.inputs; ++i) {
    if (i == at) REQUIRE(server.between_steps().shrink(id, after).ok());
    std::int32_t const token = w.text[i];
    auto const row = served::run(server, id, std::span(&token, 1), strata::logits::last);
    if (i >= w.first_scored)
      losses.push_back(lm::token_loss(row.data(), model.config().vocab, w.text[i + 1]));
  }
  return losses;
}

/// The same of all windows by what is tested, each prediction in its place.
std::vector<std::vector<double>> measured(changing& reader, std::vector<lm::window> const& windows,
                                          strata::route_plan const& before,
                                          strata::route_plan const& after, lm::depth_way way,
                                          std::int32_t vocab) {
  std::vector<std::vector<double>> losses(windows.size());
  auto const outcome =
      reader.visit(windows, before, after, way,
                   [&](std::size_t w, std::int32_t t, double const* row, std::int32_t next) {
                     REQUIRE(std::cmp_equal(losses[w].size(), t));
                     losses[w].push_back(lm::token_loss(row, vocab, next));
                   });
  INFO(strata::describe(outcome).c_str());
  REQUIRE(outcome.ok());
  return losses;
}

}  // namespace

// Blocks hold 3 tokens: of a half of 6 all are found again, of one of 4 the first 3.
TEST_CASE("depth change: as one sequence does it, token by token") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const model = served::model<double>(config);
  auto const text = text_of(40, config.vocab);
  for (std::int32_t const context : {12, 8}) {
    auto const windows = lm::halved(lm::cut_windows(text, context, context / 2), context);
    REQUIRE(windows.size() >= 4);
    changing reader(model, served::room(config, 3, context), pool);
    for (std::string const smaller : {"every:2", "leaders:0,3", "spread:1", "tail:3"}) {
      bool const first_leaders_stay = smaller == "spread:1" || smaller == "tail:3";
      auto const full = served::plan("full", config), less = served::plan(smaller, config);
      auto const half = context / 2;
      auto const losses = [&](lm::depth_way way) {
        return measured(reader, windows, full, less, way, config.vocab);
      };
      auto const stayed = losses(lm::depth_way::stay);
      auto const shrunk = losses(lm::depth_way::shrink);
      auto const reused = losses(lm::depth_way::subset);
      for (std::size_t w = 0; w < windows.size(); ++w) {
        CAPTURE(smaller);
        CAPTURE(w);
        auto const never = losses_across_the_change(model, windows[w], full, full, -1);
        auto const in_the_middle = losses_across_the_change(model, windows[w], full, less, half);
        auto const after_blocks =
            losses_across_the_change(model, windows[w], full, less, half / 3 * 3);
        CHECK(served::largest_difference(stayed[w], never) < served::rounding);
        CHECK(served::largest_difference(shrunk[w], in_the_middle) < served::rounding);
        CHECK(served::largest_difference(reused[w], after_blocks) < served::rounding);
        CHECK(served::largest_difference(never, in_the_middle) > 1e-3);
        // Rows of layer 0 are the same under every plan, and of layer 1 under all in which both lead:
        // who keeps only such leaders has lost nothing. Others remember what led before.
        auto const begun = losses_across_the_change(model, windows[w], less, less, -1);
        bool const as_begun = served::largest_difference(in_the_middle, begun) < served::rounding;
        CHECK(as_begun == first_leaders_stay);
        auto const once_more = served::largest_difference(in_the_middle, after_blocks);
        if (half % 3 == 0) CHECK(once_more == 0);
        if (half % 3 > 0 && !first_leaders_stay) CHECK(once_more > 1e-6);
      }
    }
  }
}

TEST_CASE("depth change: what a storage refuses comes back, and nothing stays open") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const model = served::model<double>(config);
  auto const text = text_of(40, config.vocab);
  auto const windows = lm::halved(lm::cut_windows(text, 8, 4), 8);
  changing reader(model, served::room(config, 3, 8), pool);
  auto const full = served::plan("full", config), half = served::plan("every:2", config);
  auto const nothing = [](std::size_t, std::int32_t, double const*, std::int32_t) {};
  for (auto const way : {lm::depth_way::shrink, lm::depth_way::subset}) {
    // There are no rows of the layers that would lead.
    auto const refused = reader.visit(windows, half, full, way, nothing);
    CHECK(refused.code ==
          (way == lm::depth_way::shrink ? strata::errc::not_a_subset : strata::errc::ok));
    CHECK(reader.visit(windows, full, half, way, nothing).ok());
  }
}
