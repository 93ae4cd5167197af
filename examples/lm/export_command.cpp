// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "export_command.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "command.hpp"
#include "failure.hpp"
#include "formats/hugging_face.hpp"
#include "formats/open_model.hpp"
#include "output_file.hpp"
#include "serving.hpp"
#include "text.hpp"
#include "text_coder.hpp"

namespace lm {
namespace {

namespace fs = std::filesystem;

/// Files of a folder that say how text becomes tokens and where it ends.
constexpr char const* tokenizer_names[] = {"tokenizer.json", "tokenizer_config.json",
                                           "special_tokens_map.json", "generation_config.json",
                                           "chat_template.jinja"};

/// What goes into the folder beside the model: a folder's files as they are, of a GGUF file what it
/// says in their form. Where they have no words for that, the file's path is noted in `training`.
std::vector<named_text> tokenizer_files(text_coder const& coder, nlohmann::ordered_json& training) {
  auto const& from = coder.source();
  std::vector<named_text> files;
  if (coder.bytes()) {
    std::fprintf(stderr, "its tokens are bytes, of which transformers has no tokenizer\n");
  } else if (fs::is_directory(from)) {
    for (auto const* name : tokenizer_names)
      if (auto const path = fs::path(from) / name; fs::exists(path)) {
        auto const bytes = read_file(path.string());
        files.push_back({name, std::string(bytes.begin(), bytes.end())});
      }
  } else {
    try {
      return coder.files();
    } catch (failure const& error) {
      std::fprintf(stderr, "its tokenizer stays in %s: %s\n", from.c_str(), error.what());
      if (training.is_null() || training.is_object()) training["tokenizer"] = from;
    }
  }
  return files;
}

void write_files(std::vector<named_text> const& files, std::string const& out) {
  for (auto const* name : tokenizer_names) {
    auto const path = (fs::path(out) / name).string();
    auto const file = std::ranges::find(files, name, &named_text::name);
    if (file != files.end()) {
      write_text(path, file->content);
      std::fprintf(stderr, "wrote %s\n", path.c_str());
    } else if (fs::exists(path)) {
      std::fprintf(stderr, "%s was there before, and is read with the model: is it this one's?\n",
                   path.c_str());
    }
  }
}

}  // namespace

void run_export(export_options options) {
  auto loaded = load_model(options.model, options.adapters);
  auto const& config = loaded.weights.config();
  for (auto const& s : resolve_strategies(options.strategies, config))
    std::fprintf(stderr, "%s: leaders %s, %.1f %% of K/V\n", s.given.c_str(),
                 leaders_text(s.leaders).c_str(), 100 * s.retention);
  auto const coder = load_text_coder(options.model);
  auto const files = tokenizer_files(coder, loaded.training);  // before anything is written
  save_hugging_face(options.out, loaded.weights,
                    {std::move(loaded.training), std::move(options.strategies)}, options.weights,
                    coder.ends());
  std::fprintf(stderr, "wrote %s/config.json and model.safetensors\n", options.out.c_str());
  write_files(files, options.out);
}

void add_export_command(CLI::App& program) {
  command<export_options> c(
      program, "export",
      "Writes a model as a folder that Hugging Face's transformers loads, with how it was trained\n"
      "and the strategies that it is meant to be served with in the metadata (\"strata\" of\n"
      "config.json and of the safetensors file), where transformers passes them over. The tokenizer\n"
      "goes with it: a folder's files, or what a GGUF file says of it as tokenizer.json and\n"
      "tokenizer_config.json.",
      run_export);
  auto& o = c.options();
  c.trained_model(o.model);
  c.adapters(o.adapters);
  c.app().add_option("--out", o.out, "made where there is none")->type_name("FOLDER")->required();
  c.app()
      .add_option("--strategy", o.strategies, "to be noted; see `strata-lm eval --help`")
      ->type_name("S...");
  c.app()
      .add_option("--weights", o.weights, "f32 or bf16")
      ->transform(one_of(weight_names()))
      ->type_name("T")
      ->default_str("bf16");
  c.footer(
      "Example:\n"
      "  strata-lm export --model flexible.strata --out flexible --strategy full every:2 every:4",
      false);
}

}  // namespace lm
