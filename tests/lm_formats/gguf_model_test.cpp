// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models in GGUF files have the weights of those that transformers wrote, in our order of rows.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "formats/gguf_model.hpp"
#include "lm_formats/hf_weights.hpp"
#include "lm_formats/refusals.hpp"

using namespace formats;

namespace {

/// A fixture with bytes of its metadata or its tensors' names other than they were; of one length.
std::string refused_with_bytes(char const* name, std::string const& from, std::string const& to) {
  auto bytes = contents(fixture(name));
  REQUIRE(from.size() == to.size());
  auto const at = bytes.find(from);
  REQUIRE(at != std::string::npos);
  bytes.replace(at, from.size(), to);
  return refusal([&] { lm::load_gguf({as_bytes(bytes), "test.gguf"}); });
}

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<char const*>(&value), sizeof(value)};
}

std::string number_value(std::uint32_t value) {
  return bytes_of(std::uint32_t{4}) + bytes_of(value);
}
std::string text_value(std::string const& value) {
  return bytes_of(std::uint32_t{8}) + bytes_of(std::uint64_t{value.size()}) + value;
}
/// What is said of the llama with one key more, and another that fills up to the next alignment.
std::string with_key(std::string const& key, std::string const& value) {
  auto bytes = contents(fixture("llama.gguf"));
  auto pairs = bytes_of(std::uint64_t{key.size()}) + key + value;
  pairs += bytes_of(std::uint64_t{6}) + "filler";
  pairs += text_value(std::string(31 - (pairs.size() + 12 + 31) % 32, ' '));
  REQUIRE(pairs.size() % 32 == 0);
  bytes[16] = static_cast<char>(bytes[16] + 2);
  return refusal([&] {
    bytes.insert(24, pairs);
    lm::load_gguf({as_bytes(bytes), "test.gguf"});
  });
}

/// A key and a uint32.
std::string pair(std::string const& key, std::uint32_t value) { return key + number_value(value); }

}  // namespace

TEST_CASE("GGUF models: architectures llama and qwen3") {
  lm::gguf_file const llama(fixture("llama.gguf")), qwen3(fixture("qwen3.gguf"));
  auto shape = llama_shape();
  shape.norm_epsilon = double{1e-5F};  // files keep a float
  CHECK(lm::gguf_config(llama) == shape);
  check_as_hf(lm::load_gguf(llama));
  shape = qwen3_shape();
  shape.norm_epsilon = double{1e-6F};
  CHECK(lm::gguf_config(qwen3) == shape);
  check_as_hf(lm::load_gguf(qwen3));
}

TEST_CASE("GGUF models: what the model does not compute is refused by its key") {
  for (auto const* const name :
       {"expert_count", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias",
        "attention.shared_kv_layers", "attention.sliding_window_pattern", "logit_scale",
        "residual_scale", "embedding_scale", "attn_logit_softcapping", "final_logit_softcapping"}) {
    CAPTURE(name);
    auto const key = std::string("llama.") + name;
    CHECK(with_key(key, number_value(8)) ==
          "test.gguf: '" + key + "' is set; the model of this program has no such thing");
    CHECK(with_key(key, number_value(0)) == "");
  }
  CHECK(contains(with_key("llama.rope.scaling.type", text_value("yarn")),
                 "'llama.rope.scaling.type' is yarn; it must be none or linear"));
  CHECK(with_key("llama.rope.scaling.type", text_value("none")) == "");
  auto const half = bytes_of(std::uint32_t{6}) + bytes_of(0.5F);
  CHECK(contains(with_key("llama.rope.scale_linear", half),
                 "RoPE scaling: factor is 0.500000; it must be from 1 to a million"));
  CHECK(contains(with_key("split.count", number_value(2)), "'split.count' is set; this program"));
  CHECK(with_key("split.count", number_value(1)) == "");
  CHECK(with_key("llama.attention.sliding_window", number_value(7)) == "");
  CHECK(contains(with_key("llama.attention.sliding_window", text_value("7")),
                 "is of kind string; should be of kind integer"));
}

TEST_CASE("GGUF models: keys and tensors that do not fit") {
  auto const llama = [](std::string const& from, std::string const& to) {
    return refused_with_bytes("llama.gguf", from, to);
  };
  auto const architecture = bytes_of(std::uint64_t{5});
  CHECK(contains(llama(architecture + "llama", architecture + "gemma"),
                 "'general.architecture' is gemma; this program reads llama and qwen3"));
  CHECK(contains(llama("llama.block_count", "llama.block_c0unt"),
                 "'llama.block_count' is missing from the metadata"));
  CHECK(contains(llama(pair("llama.block_count", 2), pair("llama.block_count", 0)),
                 "'llama.block_count' is 0; it must lie between 1 and"));
  CHECK(contains(llama(pair("llama.block_count", 2), pair("llama.block_count", 1000)),
                 "--layers is 1000; it must lie between 1 and 256"));
  CHECK(contains(llama(pair("llama.block_count", 2), pair("llama.block_count", 3)),
                 "tensor 'blk.2.attn_norm.weight' is missing"));
  CHECK(contains(llama(pair("llama.block_count", 2), pair("llama.block_count", 1)),
                 "' has no place in a model of this program"));
  CHECK(contains(llama(pair("head_count", 4), pair("head_count", 2)),
                 "tensor 'blk.0.attn_q.weight' has shape [16, 8]; the model's is [8, 8]"));
  CHECK(contains(llama(pair("head_count_kv", 2), pair("head_count_kv", 3)), "--kv-heads is 3"));
  CHECK(contains(llama(pair("value_length", 4), pair("value_length", 8)),
                 "'llama.attention.value_length' is 8; it must be as that of keys, 4"));
  CHECK(contains(llama(pair("rope.dimension_count", 4), pair("rope.dimension_count", 2)),
                 "'llama.rope.dimension_count' is 2; all of a head is turned, 4"));
  CHECK(contains(llama("token_embd.weight", "token_embd.weighs"),
                 "tensor 'token_embd.weight' is missing"));
  CHECK(contains(llama("blk.1.attn_q.weight", "blk.1.attn_q.biases"),
                 "tensor 'blk.1.attn_q.weight' is missing"));
}
