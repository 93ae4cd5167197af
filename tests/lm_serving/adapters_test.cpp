// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Adapters in a folder of their own: the model with them is the one that training merged.
#include "commanded.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "formats/hugging_face.hpp"
#include "interrupter.hpp"

using namespace commanded;

namespace {

/// A base of 4 layers and a text; adapters of rank 2 are trained from it for 6 steps.
class adapted_files {
 public:
  scratch_folder const folder;

  adapted_files() {
    write_small_model(folder / "base");
    lm::write_text(folder / "text", some_text(3000));
  }
  int train(std::string const& out, std::vector<std::string> const& more) const {
    std::vector<std::string> all = {"train", "--out", out, "--text", folder / "text"};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(all);
  }
  std::vector<std::string> fresh() const {
    return {"--init",         folder / "base",
            "--lora",         "2",
            "--steps",        "6",
            "--batch",        "2",
            "--lr",           "0.05",
            "--threads",      "1",
            "--adapters-out", folder / "adapters"};
  }
  std::vector<float> weights(char const* name) const {
    auto const model = lm::load_checkpoint(folder / name);
    return {model.weights.values().begin(), model.weights.values().end()};
  }
};

}  // namespace

TEST_CASE("adapters: a base and its adapters are the model that training merged to the bit") {
  adapted_files const f;
  capture news(stderr);
  REQUIRE(f.train(f.folder / "merged", f.fresh()) == 0);
  CHECK(contains(news.text(), "wrote the adapters to " + (f.folder / "adapters")));
  auto const base = read_json(f.folder / "adapters/adapter_config.json");
  CHECK(base.at("base_model_name_or_path") == f.folder / "base");
  // At a rate of 0 nothing moves: what is written is what was put together.
  REQUIRE(f.train(f.folder / "sum",
                  {"--init", f.folder / "base", "--adapters", f.folder / "adapters", "--lr", "0",
                   "--steps", "1", "--batch", "1", "--threads", "1"}) == 0);
  CHECK(f.weights("sum") == f.weights("merged"));
  CHECK(f.weights("sum") != f.weights("base"));
  for (auto const* const name : {"merged", "base"}) {
    std::vector<std::string> call = {"export", "--model", f.folder / name, "--out",
                                     f.folder / (std::string(name) + ".out").c_str()};
    if (name == std::string("base")) call.insert(call.end(), {"--adapters", f.folder / "adapters"});
    REQUIRE(run_program(call) == 0);
  }
  auto const with = lm::load_hugging_face(f.folder / "base.out"),
             merged = lm::load_hugging_face(f.folder / "merged.out");
  CHECK(std::ranges::equal(with.values(), merged.values()));
  auto const json = [&](char const* name) {
    return nlohmann::json::parse(contents(f.folder / name));
  };
  CHECK(json("base.out/config.json") == json("merged.out/config.json"));
}

TEST_CASE("adapters: eval and generate read them and an interrupted run goes on") {
  adapted_files const f;
  {
    interrupted_now const stop;
    capture news(stderr);
    CHECK(f.train(f.folder / "merged", f.fresh()) == 130);
    CHECK(contains(news.text(), "--resume --out " + (f.folder / "merged") + " --adapters-out " +
                                    (f.folder / "adapters")));
  }
  capture news(stderr);
  REQUIRE(f.train(f.folder / "merged", {"--resume", "--adapters-out", f.folder / "adapters"}) == 0);
  REQUIRE(f.train(f.folder / "straight", f.fresh()) == 0);
  CHECK(f.weights("merged") == f.weights("straight"));
  auto const loss = [&](std::vector<std::string> const& model) {
    std::vector<std::string> call = {"eval", "--text", f.folder / "text", "--max-bytes",
                                     "200",  "--json", f.folder / "json", "--threads",
                                     "1"};
    call.insert(call.end(), model.begin(), model.end());
    capture table(stdout);
    REQUIRE(run_program(call) == 0);
    return read_json(f.folder / "json").at("strategies")[0].at("loss").get<double>();
  };
  auto const merged = loss({"--model", f.folder / "merged"});
  CHECK(loss({"--model", f.folder / "base", "--adapters", f.folder / "adapters"}) == merged);
  CHECK(loss({"--model", f.folder / "base"}) > merged + .005);
  capture said(stdout);
  CHECK(run_program({"generate", "--model", f.folder / "base", "--adapters", f.folder / "adapters",
                     "--prompt", "and", "--max-tokens", "2", "--threads", "1"}) == 0);
}

TEST_CASE("adapters: what belongs to no file is not written and what does not fit not read") {
  adapted_files const f;
  auto const refused = [&](std::vector<std::string> const& arguments, char const* why) {
    capture complaint(stderr);
    CHECK(f.train(f.folder / "out", arguments) != 0);
    CHECK(contains(complaint.text(), why));
    CHECK(!fs::exists(f.folder / "out"));
    CHECK(!fs::exists(f.folder / "adapters"));
  };
  auto const to = f.folder / "adapters";
  refused({"--init", f.folder / "base", "--adapters-out", to}, "without --lora there are no");
  refused({"--lora", "2", "--adapters-out", to}, "the run began without --init");
  fs::create_directory(f.folder / "empty");
  refused({"--adapters", f.folder / "empty"},
          "--adapters cannot be given: they are added to --init");
  refused({"--init", f.folder / "base", "--adapters", f.folder / "empty", "--adapters-out", to},
          "export it first");
  refused({"--init", f.folder / "base", "--adapters", f.folder / "empty"},
          "adapter_config.json: No such file");
}
