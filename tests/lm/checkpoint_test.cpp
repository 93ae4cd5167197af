// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files: what is written comes back to the bit; what is not a whole, undamaged model of ours is
// refused with what is wrong.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "tiny_files.hpp"

namespace {

using bytes = std::string;

bytes contents(std::string const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void put(std::string const& path, bytes const& what) {
  std::ofstream(path, std::ios::binary) << what;
}

lm::model_config small_model() {
  lm::model_config c;
  c.layers = 2;
  c.dim = 6;
  c.q_heads = 2;
  c.kv_heads = 1;
  c.head_dim = 4;
  c.mlp = 10;
  c.context = 16;
  c.qk_norm = true;
  c.tied = false;
  c.window = 9;
  c.rope_theta = 12345.678;
  return c;
}

/// A saved model with moments, and its bytes.
struct saved_model {
  tiny::scratch_file file{"checkpoint.strata"};
  lm::parameters<float> weights{small_model()}, first{small_model()}, second{small_model()};
  bytes whole;

  saved_model() {
    lm::initialise(weights, 1);
    lm::initialise(first, 2);
    lm::initialise(second, 3);
    weights.values()[5] = std::numeric_limits<float>::quiet_NaN();
    weights.values()[6] = -0.0F;
    weights.values()[7] = std::numeric_limits<float>::denorm_min();
    save();
    whole = contents(file.path());
  }
  void save() const {
    lm::save_checkpoint(file.path(), weights, {&first, &second}, {{"step", 7}, {"x", "y"}});
  }
  /// Loads these bytes instead; the sentence of the refusal, or "". It begins with the file's name
  /// and says it once.
  std::string refusal(bytes const& changed) const {
    put(file.path(), changed);
    try {
      static_cast<void>(lm::load_checkpoint(file.path()));
      return "";
    } catch (lm::failure const& error) {
      std::string const why = error.what();
      CHECK(why.starts_with(file.path() + ": "));
      CHECK(why.rfind(file.path()) == 0);
      return why;
    }
  }
};

/// The file with another header, whose length and checksum are right.
bytes with_header(bytes const& whole, std::string const& from, std::string const& to) {
  std::uint64_t length = 0;
  std::memcpy(&length, whole.data() + 16, 8);
  auto header = whole.substr(24, length);
  auto const at = header.find(from);
  REQUIRE(at != bytes::npos);
  header.replace(at, from.size(), to);
  auto const crc = strata::crc32c(std::as_bytes(std::span(header)));
  length = header.size();
  auto out = whole.substr(0, 24);
  std::memcpy(out.data() + 12, &crc, 4);
  std::memcpy(out.data() + 16, &length, 8);
  return out + header + whole.substr(24 + whole.substr(24).find('\0'));
}

bool contains(std::string const& text, char const* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a model comes back to the bit, with its moments and its training") {
  saved_model const m;
  auto const back = lm::load_checkpoint(m.file.path());
  CHECK(back.weights.config() == small_model());
  CHECK(lm::load_config(m.file.path()) == small_model());
  auto const same = [](lm::parameters<float> const& a, lm::parameters<float> const& b) {
    return std::memcmp(a.values().data(), b.values().data(), a.values().size_bytes()) == 0;
  };
  CHECK(same(back.weights, m.weights));
  REQUIRE(back.optimizer.has_value());
  CHECK(same(back.optimizer->first, m.first));
  CHECK(same(back.optimizer->second, m.second));
  CHECK(back.training.at("step") == 7);
  CHECK(!lm::load_checkpoint(m.file.path(), false).optimizer.has_value());
  lm::save_checkpoint(m.file.path(), m.weights, {}, {});
  CHECK(!lm::load_checkpoint(m.file.path()).optimizer.has_value());
}

TEST_CASE("a truncated file is refused, wherever it ends") {
  saved_model const m;
  for (std::size_t size = 0; size < m.whole.size(); size += 1 + size / 9) {
    CAPTURE(size);
    auto const why = m.refusal(m.whole.substr(0, size));
    CHECK(contains(why, m.file.path().c_str()));
    CHECK((contains(why, "is truncated") || contains(why, "is no model of strata-lm")));
  }
  CHECK(contains(m.refusal(m.whole.substr(0, m.whole.size() - 1)), "is truncated: it has"));
  CHECK(contains(m.refusal(m.whole + "x"), "should have"));
}

TEST_CASE("one flipped bit is found, wherever it is") {
  saved_model const m;
  std::uint64_t length = 0;
  std::memcpy(&length, m.whole.data() + 16, 8);
  auto const is_padding = [&](std::size_t at) {  // zeros between sections carry nothing
    return m.whole[at] == '\0' && at >= 24 + length && at < (24 + length + 63) / 64 * 64;
  };
  for (std::size_t at = 0; at < m.whole.size(); at += at < 400 ? 7 : 131) {
    if (is_padding(at)) continue;
    CAPTURE(at);
    auto damaged = m.whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    CHECK(!m.refusal(damaged).empty());
  }
}

TEST_CASE("a foreign file, another version and a header that lies are refused in words") {
  saved_model const m;
  auto const changed = [&](std::size_t at, char value) {
    auto out = m.whole;
    out[at] = value;
    return m.refusal(out);
  };
  CHECK(contains(m.refusal("#!/bin/sh\necho this is a shell script, not a model\n"),
                 "does not begin with 'strataLM'"));
  CHECK(contains(changed(8, 2), "has version 2; this program reads 1"));
  CHECK(contains(changed(23, 0x7F), "the most is 16777216"));
  CHECK(contains(changed(30, '#'), "the checksum of its header"));
  CHECK(contains(changed(m.whole.size() - 1, '#'), "the checksum of its section 'second_moment'"));
  auto const lie = [&](char const* from, char const* to) {
    return m.refusal(with_header(m.whole, from, to));
  };
  CHECK(lie("\"layers\":2", "\"layers\":2") == "");  // the tool itself does no harm
  CHECK(contains(lie("\"layers\":2", "\"layers\":3"), "its tensors are not those of its config"));
  CHECK(contains(lie("\"layers\":2", "\"layers\":-1"), "--layers is -1"));
  CHECK(contains(lie("\"layers\":2", "\"layers\":4294967298"), "layers is 4294967298"));
  CHECK(contains(lie("\"layers\":2", "\"layers\":\"a\""), "its header lacks something"));
  CHECK(contains(lie("\"q_heads\":2", "\"q_heads\":0"), "--q-heads is 0"));
  CHECK(contains(lie("\"config\"", "\"konfig\""), "its header lacks something"));
  CHECK(contains(lie("\"rows\":256", "\"rows\":255"), "its tensors are not those of its config"));
  CHECK(contains(lie("\"bytes\":", "\"bytes\":9"), "its section 'weights' lies at"));
  CHECK(contains(lie("{\"config\"", "[{\"config\""), "is no JSON object"));
}

TEST_CASE("adapters come back to the bit and as many as their rank asks") {
  saved_model m;
  lm::adapter_table const table(small_model(), 3);
  std::vector<float> values(static_cast<std::size_t>(table.tensors.size), 1.5F), first(values),
      second(values);
  table.initialise(values, 4);
  second.back() = 7;
  lm::save_checkpoint(m.file.path(), m.weights,
                      {nullptr, nullptr, {3, &m.first, values, first, second}}, {});
  m.whole = contents(m.file.path());
  auto const back = lm::load_checkpoint(m.file.path());
  CHECK(!back.optimizer.has_value());
  REQUIRE(back.adapters.has_value());
  CHECK(back.adapters->rank == 3);
  CHECK(std::ranges::equal(back.adapters->base.values(), m.first.values()));
  CHECK(back.adapters->values == values);
  CHECK(back.adapters->first == first);
  CHECK(back.adapters->second == second);
  CHECK(!lm::load_checkpoint(m.file.path(), false).adapters.has_value());

  auto const lie = [&](char const* to) {
    return m.refusal(with_header(m.whole, "\"adapter_rank\":3", to));
  };
  CHECK(contains(lie("\"adapter_rank\":2"), "its section 'adapters' lies at"));
  CHECK(contains(lie("\"adapter_rank\":7"), "its adapter_rank is 7; it must lie between 0 and "));
  CHECK(contains(lie("\"adapter_rank\":-1"), "its adapter_rank is -1"));
  CHECK(contains(lie("\"adapter_rank\":\"a\""), "its header lacks something"));
  CHECK(contains(m.refusal(with_header(m.whole, "\"base\"", "\"case\"")), "has no section 'base'"));
  m.whole.back() = '#';
  CHECK(contains(m.refusal(m.whole), "the checksum of its section 'adapters_second'"));
}

TEST_CASE("a save that fails leaves the old file and no other") {
  saved_model const m;
  CHECK_THROWS_WITH_AS(lm::save_checkpoint("/nonexistent/folder/m.strata", m.weights, {}, {}),
                       doctest::Contains("/nonexistent/folder/m.strata"), lm::failure);
  tiny::scratch_folder const folder("saves");
  auto const path = folder.path() + "/m.strata";
  lm::save_checkpoint(path, m.weights, {}, {});
  auto const before = contents(path);
  // A folder in the file's place: the rename fails after everything was written.
  auto const taken = folder.path() + "/taken";
  REQUIRE(mkdir(taken.c_str(), 0700) == 0);
  CHECK_THROWS_AS(lm::save_checkpoint(taken, m.weights, {}, {}), lm::failure);
  CHECK(folder.entries() == std::vector<std::string>{"m.strata", "taken"});
  // Saving again replaces the file as a whole.
  lm::save_checkpoint(path, m.first, {}, {});
  CHECK(contents(path) != before);
  CHECK(folder.entries() == std::vector<std::string>{"m.strata", "taken"});
}

TEST_CASE("what cannot be read is refused with its name") {
  CHECK_THROWS_WITH_AS(lm::load_checkpoint("/nonexistent.strata"),
                       "/nonexistent.strata: No such file or directory", lm::failure);
  CHECK_THROWS_WITH_AS(lm::load_checkpoint("/tmp"), doctest::Contains("is no regular file"),
                       lm::failure);
}
