// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Numbers, tables and refusals as people read them.
#include <doctest/doctest.h>

#include <string>

#include "commands.hpp"
#include "shapes.hpp"
#include "table.hpp"
#include "units.hpp"

TEST_CASE("parse_bytes: binary and decimal units, and what means nothing") {
  CHECK(lm::parse_bytes("4096") == 4096);
  CHECK(lm::parse_bytes("0") == 0);
  CHECK(lm::parse_bytes("512MiB") == 512LL << 20);
  CHECK(lm::parse_bytes("512 mib") == 512LL << 20);
  CHECK(lm::parse_bytes("1.5GiB") == 3LL << 29);
  CHECK(lm::parse_bytes("2Gi") == 2LL << 30);
  CHECK(lm::parse_bytes("300kB") == 300000);
  CHECK(lm::parse_bytes("1TiB") == 1LL << 40);
  CHECK(lm::parse_bytes("7b") == 7);
  for (auto const* const wrong :
       {"", "MiB", "12q", "1.2.3MiB", "-5", "1e9", "99999999999TiB", "12MiBs", "0x10"}) {
    CAPTURE(wrong);
    CHECK_FALSE(lm::parse_bytes(wrong).has_value());
  }
}

TEST_CASE("numbers as text") {
  CHECK(lm::bytes_text(std::int64_t{512}) == "512 B");
  CHECK(lm::bytes_text(std::int64_t{1536}) == "1.50 KiB");
  CHECK(lm::bytes_text(std::int64_t{147456}) == "144 KiB");
  CHECK(lm::bytes_text(std::int64_t{1} << 62) == "4096 PiB");
  CHECK(lm::count_text(0) == "0");
  CHECK(lm::count_text(999) == "999");
  CHECK(lm::count_text(1000) == "1 000");
  CHECK(lm::count_text(-123456) == "-123 456");
  CHECK(lm::count_text(1234567) == "1 234 567");
  CHECK(lm::duration_text(9.49) == "9.5 s");
  CHECK(lm::duration_text(59.4) == "59 s");
  CHECK(lm::duration_text(65) == "1:05");
  CHECK(lm::duration_text(3700) == "1:01:40");
  CHECK(lm::rate_text(3.14159) == "3.14");
  CHECK(lm::rate_text(12345.6) == "12346");
}

TEST_CASE("text: as long as it gets") {
  for (std::size_t const size : {0, 1, 511, 512, 5000})
    CHECK(lm::text("<%s%d>", std::string(size, 'x').c_str(), 7) ==
          "<" + std::string(size, 'x') + "7>");
}

TEST_CASE("text_table: columns as wide as their widest cell, in characters") {
  lm::text_table table({"a", "right"});
  table.add({"long name", "1"});
  table.add({"\xC3\xA9"});
  CHECK(table.text(1) == " a          right\n ----------------\n long name      1\n \xC3\xA9\n");
  lm::text_table left({"a", "b"}, 2);
  left.add({"x", "long"});
  left.add({"y", "s"});
  CHECK(left.text(0) == "a  b\n-------\nx  long\ny  s\n");
}

TEST_CASE("shapes: bytes per token and parameters of the public models") {
  auto const per_token = [](char const* name, char const* strategy) {
    auto const config = lm::find_shape(name);
    CHECK(config.check() == "");
    auto const s = lm::resolve_strategy(strategy, config);
    return lm::cache_bytes(s.plan, config, {lm::cache_codec::bf16, 1, 1});
  };
  CHECK(per_token("qwen3-8b", "full") == 144 * 1024);
  CHECK(per_token("qwen3-8b", "every:4") == 36 * 1024);
  CHECK(per_token("llama-3.1-8b", "full") == 128 * 1024);
  CHECK(per_token("mistral-7b", "full") == 128 * 1024);
  CHECK(per_token("qwen3-1.7b", "full") == 112 * 1024);
  CHECK(per_token("qwen3-0.6b", "full") == 112 * 1024);
  CHECK(per_token("qwen3-4b", "full") == 144 * 1024);
  CHECK(per_token("llama-2-7b", "full") == 512 * 1024);
  CHECK(per_token("llama-3.2-1b", "full") == 32 * 1024);
  CHECK(per_token("smollm2-135m", "full") == 22.5 * 1024);
  // As published, in billions.
  auto const billions = [](char const* name) {
    return static_cast<double>(lm::find_shape(name).parameter_count()) * 1e-9;
  };
  CHECK(billions("qwen3-8b") == doctest::Approx(8.19).epsilon(0.002));
  CHECK(billions("qwen3-1.7b") == doctest::Approx(1.72).epsilon(0.002));
  CHECK(billions("qwen3-0.6b") == doctest::Approx(0.596).epsilon(0.002));
  CHECK(billions("llama-3.1-8b") == doctest::Approx(8.03).epsilon(0.002));
  CHECK(billions("mistral-7b") == doctest::Approx(7.25).epsilon(0.002));
  CHECK(billions("qwen3-4b") == doctest::Approx(4.02).epsilon(0.002));
  CHECK(billions("llama-2-7b") == doctest::Approx(6.74).epsilon(0.002));
  CHECK(billions("llama-3.2-1b") == doctest::Approx(1.236).epsilon(0.002));
  CHECK(billions("smollm2-135m") == doctest::Approx(0.1345).epsilon(0.002));
  CHECK_THROWS_AS(lm::find_shape("gpt"), lm::failure);
}

TEST_CASE("refusals name the argument, the mistake and the bytes") {
  lm::model_config config;
  try {
    lm::resolve_strategy("leaders:1,2", config);
    FAIL("a first leader that is not layer 0 was taken");
  } catch (lm::failure const& refusal) {
    std::string const what = refusal.what();
    CHECK(refusal.code() == lm::exit_code::wrong_use);
    CHECK(what.find("--strategy") == 0);
    CHECK(what.find("leaders:1,2\n          ^") != std::string::npos);
  }
  try {
    lm::require_fit(2048, 1000, "K/V", "--kv-budget");
    FAIL("2048 bytes fitted into 1000");
  } catch (lm::failure const& refusal) {
    CHECK(refusal.code() == lm::exit_code::does_not_fit);
    CHECK(refusal.what() ==
          std::string("K/V: 2 048 bytes (2 KiB) are needed; --kv-budget has 1 000 (1000 B)"));
  }
  CHECK_NOTHROW(lm::require_fit(1000, 1000, "K/V", "--kv-budget"));
}
