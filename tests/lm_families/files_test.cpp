// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The same model in other files: GGUF with scaled RoPE, and folders that this program writes.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "family.hpp"
#include "formats/gguf_model.hpp"
#include "lm/tiny_files.hpp"

namespace {

using families::family;
using families::folder;

std::string contents(std::string const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool same_weights(lm::parameters<float> const& a, lm::parameters<float> const& b) {
  return std::ranges::equal(a.values(), b.values());
}

/// What is said of a GGUF file with these bytes.
std::string refusal(std::string const& bytes) {
  try {
    lm::load_gguf({std::as_bytes(std::span(bytes)), "test.gguf"});
  } catch (lm::failure const& failure) {
    return failure.what();
  }
  return "";
}

}  // namespace

TEST_CASE("families: GGUF files say linear scaling by keys and llama3's by a tensor") {
  for (std::string const name : {"llama-linear", "llama3-8192"}) {
    CAPTURE(name);
    family const f(name);
    lm::gguf_file const file(folder(name) + "/model.gguf");
    auto expected = f.config();
    expected.norm_epsilon = double{1e-5F};  // files keep a float
    CHECK(lm::gguf_config(file) == expected);
    CHECK(same_weights(lm::load_gguf(file), f.weights));
  }
}

TEST_CASE("families: divisors of frequencies that are not llama3's are refused") {
  auto const bytes = contents(folder("llama3-8192") + "/model.gguf");
  lm::gguf_file const file(folder("llama3-8192") + "/model.gguf");
  auto const* const tensor = file.find("rope_freqs.weight");
  REQUIRE(tensor != nullptr);
  std::vector<float> divisors(static_cast<std::size_t>(tensor->size()));
  file.read(static_cast<std::size_t>(tensor - file.tensors().data()), divisors);
  REQUIRE(divisors.front() == 1);
  REQUIRE(divisors.back() == 8);
  std::string_view const found(reinterpret_cast<char const*>(divisors.data()),
                               divisors.size() * sizeof(float));
  auto const at = bytes.find(found);
  REQUIRE(at != std::string::npos);
  auto const with = [&](std::size_t i, float value) {
    auto changed = bytes;
    std::memcpy(&changed[at + i * sizeof(float)], &value, sizeof(float));
    return refusal(changed);
  };
  CHECK(with(0, 1) == "");
  CHECK(with(0, 1.001F) ==
        "test.gguf: tensor 'rope_freqs.weight' divides frequency 0 by 1.001000; llama3's scaling "
        "beyond 8192 tokens would by 1.000000");
  CHECK(with(2, 1.5F) != "");  // between
  CHECK(with(3, 32) != "");    // another factor, which the one between does not fit
  CHECK(with(3, NAN) != "");
}

TEST_CASE("families: a folder that this program writes is the same model") {
  tiny::scratch_folder const scratch("families");
  for (auto const& name : families::names) {
    CAPTURE(name);
    family const f(name);
    auto const path = scratch.path() + "/" + name;
    lm::save_hugging_face(path, f.weights, {});
    auto const again = lm::load_hugging_face(path);
    CHECK(again.config() == f.config());
    CHECK(same_weights(again, f.weights));
  }
}
