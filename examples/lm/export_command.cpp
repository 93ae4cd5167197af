// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "export_command.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "command.hpp"
#include "failure.hpp"
#include "formats/hugging_face.hpp"
#include "formats/open_model.hpp"
#include "serving.hpp"
#include "text_coder.hpp"

namespace lm {
namespace {

namespace fs = std::filesystem;

/// Copies what a folder has of a tokenizer; the files' names.
std::vector<std::string> copy_tokenizer(fs::path const& from, fs::path const& to) {
  std::vector<std::string> copied;
  for (auto const* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "chat_template.jinja"}) {
    std::error_code error;
    if (!fs::exists(from / name, error)) continue;
    fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing, error);
    if (error) throw failure((to / name).string() + ": " + error.message());
    copied.emplace_back(name);
  }
  return copied;
}

/// A folder's files as they are; what a GGUF file says in their form.
void export_tokenizer(text_coder const& coder, std::string const& out) {
  auto const& from = coder.source();
  if (coder.bytes()) {
    std::fprintf(stderr, "its tokens are bytes, of which transformers has no tokenizer\n");
  } else if (!fs::is_directory(from)) {
    coder.save(out);
    std::fprintf(stderr, "wrote tokenizer.json and tokenizer_config.json, from %s\n", from.c_str());
  } else if (!fs::equivalent(from, out)) {
    for (auto const& name : copy_tokenizer(from, out))
      std::fprintf(stderr, "copied %s from %s\n", name.c_str(), from.c_str());
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
  save_hugging_face(options.out, loaded.weights,
                    {std::move(loaded.training), std::move(options.strategies)}, options.weights,
                    coder.ends());
  std::fprintf(stderr, "wrote %s/config.json and model.safetensors\n", options.out.c_str());
  export_tokenizer(coder, options.out);
}

void add_export_command(CLI::App& program) {
  command<export_options> c(
      program, "export",
      "Writes a model as a folder that Hugging Face's transformers loads, with how it was trained\n"
      "and the strategies that it is meant to be served with in the metadata (\"strata\" of\n"
      "config.json and of the safetensors file), where transformers passes them over.",
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
