// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The inputs that fuzzing found worth keeping, and some thousands of their changes.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>

#include "fuzz/corpus.hpp"
#include "fuzz/gguf_target.hpp"
#include "fuzz/mutation.hpp"
#include "fuzz/safetensors_target.hpp"

namespace {

using fuzz::buffer;

/// A number of 4 or 8 bytes, of any size, now and then: what counts and offsets are.
void change_number(buffer& input, buffer const& other, std::mt19937& random) {
  if (random() % 2 == 0 || input.size() < 8) return fuzz::change(input, other, random);
  std::uint64_t const numbers[] = {0,
                                   1,
                                   2,
                                   random() % 300,
                                   std::uint64_t{1} << random() % 64,
                                   ~std::uint64_t{0} >> random() % 64};
  auto const value = numbers[random() % std::size(numbers)];
  std::memcpy(input.data() + random() % (input.size() - 7), &value, random() % 2 == 0 ? 4 : 8);
}

}  // namespace

TEST_CASE("replayed corpus: GGUF files") {
  fuzz::tally<fuzz::gguf::num_reaches> came;
  for (auto const& input : fuzz::corpus_of("gguf")) came.add(fuzz::gguf::one_input(input));
  came.check(1);
}

TEST_CASE("replayed corpus: safetensors files") {
  fuzz::tally<fuzz::safetensors::num_reaches> came;
  for (auto const& input : fuzz::corpus_of("safetensors"))
    came.add(fuzz::safetensors::one_input(input));
  came.check(2);
}

TEST_CASE("thousands of changed inputs: GGUF files") {
  fuzz::throw_at<fuzz::gguf::num_reaches>("gguf", 32'000, change_number, fuzz::gguf::one_input);
}

TEST_CASE("thousands of changed inputs: safetensors files") {
  fuzz::throw_at<fuzz::safetensors::num_reaches>("safetensors", 32'000, fuzz::change,
                                                 fuzz::safetensors::one_input);
}
