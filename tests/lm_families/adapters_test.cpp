// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Adapters that PEFT wrote (make_adapters.py): the logits with them are PEFT's.
#include <string>
#include <vector>

#include <strata/cache/element.hpp>
#include <strata/thread_pool.hpp>

#include "family.hpp"
#include "formats/adapter_folder.hpp"
#include "formats/open_model.hpp"

namespace {

std::string adapters_of(char const* name) {
  return families::folder("../adapters/" + std::string(name));
}

/// All logits of the family's text.
std::vector<float> logits_with(lm::parameters<float> const& weights, families::family const& f) {
  strata::thread_pool pool(1);
  auto const plan = f.plan("full");
  auto const server = lm::make_server(weights, pool, plan, {lm::cache_codec::f32, 1, f.length()});
  auto const id = server->open(plan).value();
  REQUIRE(server->run(lm::feed{id, f.text(), strata::logits::all}).ok());
  return {server->logits().begin(), server->logits().end()};
}

struct peft_case {
  char const *name, *base;
};
constexpr peft_case peft_cases[] = {{"all", "smollm2"}, {"some", "qwen3"}};

}  // namespace

TEST_CASE("families: adapters that PEFT wrote give its logits") {
  for (auto const& one : peft_cases) {
    CAPTURE(one.name);
    families::family const f(one.base);
    lm::safetensors_file const file(adapters_of(one.name) + "/expected.safetensors");
    std::vector<float> expected(static_cast<std::size_t>(file.tensors().front().size()));
    file.read(0, expected);
    auto const model = lm::load_model(families::folder(one.base), adapters_of(one.name));
    CHECK(model.training.is_null());
    CHECK(families::largest_difference(logits_with(model.weights, f), expected) < 2e-4);
    CHECK(families::largest_difference(logits_with(f.weights, f), expected) > 1);
  }
}

TEST_CASE("families: adapters are added to a model in bf16 as to one in float and rounded once") {
  for (auto const& one : peft_cases) {
    CAPTURE(one.name);
    auto const sum = lm::load_model(families::folder(one.base), adapters_of(one.name)).weights;
    auto narrow = lm::load_narrow_model(families::folder(one.base), adapters_of(one.name));
    auto const& entries = sum.table().entries;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (lm::narrow_weights::is_gain(entries[i])) continue;
      CAPTURE(entries[i].name);
      auto const from = sum.tensor(entries[i]);
      std::size_t wrong = 0;
      for (std::size_t j = 0; j < from.size(); ++j)
        wrong +=
            strata::to_float(narrow.matrix(i)[j]) != strata::to_float(strata::to_bfloat16(from[j]));
      CHECK(wrong == 0);
    }
  }
}
