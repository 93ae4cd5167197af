// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the demo shows besides losses says what it promises, and the numbers are those of the run.
#include "demo_proofs.hpp"

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "commanded.hpp"

using commanded::contains;

namespace {

/// The demo's models after two steps.
struct trained {
  strata::thread_pool pool{2};
  lm::corpus text;
  lm::experiment models;

  trained()
      : text(texts(), 20),
        models(lm::demo_arms(commanded::small_shape(), {}), options(), text, pool) {
    models.step();
    models.step();
  }
  lm::arm const& rcla() const { return models["rcla"]; }

 private:
  static std::vector<std::vector<std::uint8_t>> texts() {
    auto const words = commanded::some_text(20 * 16384);
    return {{words.begin(), words.end()}};
  }
  static lm::training_options options() {
    lm::training_options o;
    o.model = commanded::small_shape();
    o.hold_out = 20;
    o.steps = 4;
    o.batch = 2;
    return o;
  }
};

}  // namespace

TEST_CASE("proofs: token by token equals full pass, and the line says how nearly") {
  trained t;
  auto const line = lm::stepwise_line(t.rcla(), t.text, t.pool);
  CHECK(contains(line, "rcla: token by token equals full pass, largest difference "));
  CHECK(contains(line, " in a logit (16 tokens, 4 strategies)\n"));
  double difference = -1;
  REQUIRE(std::sscanf(line.c_str() + line.find("difference"), "difference %lf", &difference) == 1);
  CHECK(difference >= 0);
  CHECK(difference < 1e-4);
}

TEST_CASE("proofs: in half of the memory full is refused by the storage, and every:4 completes") {
  trained t;
  auto const lines = lm::ceiling_lines(t.rcla(), t.text, t.pool);
  INFO(lines);
  // Of 4 layers, 16 sequences of 16 tokens of 16 floats: K takes 65536 bytes, and V the same.
  CHECK(
      contains(lines, "In 64 KiB of memory, half of it for K and half for V, 16 sequences of 16"));
  CHECK(contains(lines,
                 "full      refused: the K/V cache: the memory given has 32768 bytes; 65536 "
                 "are needed"));
  CHECK(contains(lines, "every:4   completes: 256 tokens in 32 768 bytes"));
}

TEST_CASE("proofs: one prompt continued by two models at two strategies") {
  trained t;
  auto const lines = lm::continuations(t.models, t.text, 1, t.pool);
  INFO(lines);
  auto const prompt = lm::held_out_prompt(t.text, 8);
  CHECK(prompt.size() == 8);
  CHECK(contains(lines, "prompt          \"" + lm::one_line(lm::bytes_of(prompt)) + "\"\n"));
  for (auto const* const name : {"plain ", "rcla  "})
    for (auto const* const given : {"full    ", "every:4 "}) {
      auto const label = std::string("  ") + name + given + "  \"";
      CHECK(contains(lines, label));
      CHECK_FALSE(contains(lines, label + "\"\n"));  // it says something
    }
  CHECK(lm::continuations(t.models, t.text, 1, t.pool) == lines);
  CHECK(lm::continuations(t.models, t.text, 2, t.pool) != lines);
}

TEST_CASE("proofs: a prompt is what a block has, where it is short") {
  lm::corpus const text({std::vector<std::uint8_t>(19 * 16384 + 5, 'x')}, 20);
  CHECK(lm::held_out_prompt(text, 8).size() == 5);
  CHECK(lm::held_out_prompt(text, 3).size() == 3);
}
