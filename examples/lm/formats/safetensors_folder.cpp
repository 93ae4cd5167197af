// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model's safetensors files in a folder.
#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>
#include <utility>

#include "../failure.hpp"
#include "named.hpp"
#include "safetensors.hpp"

namespace lm {
namespace {

/// Of an index: the part that each tensor is in.
using weight_map = std::map<std::string, std::string>;

/// Throws where the index is none, or where a part is anything but a file of this folder.
weight_map read_index(std::string const& path) {
  mapped_file const file(path);
  auto const bytes = file.bytes();
  if (bytes.size() > std::size_t{safetensors_file::longest_header})
    throw failure(path + ": has " + std::to_string(bytes.size()) + " bytes; the most is " +
                  std::to_string(safetensors_file::longest_header));
  auto const json =
      parse_strictly({reinterpret_cast<char const*>(bytes.data()), bytes.size()}, path);
  auto const list = json.is_object() ? json.value("weight_map", strict_json()) : strict_json();
  if (!list.is_object() || list.empty()) throw failure(path + ": has no weight_map");
  weight_map parts;
  for (auto const& [name, part] : list.items()) {
    // No part is elsewhere: whoever wrote the index must not choose among all files.
    bool const plain = part.is_string() && part.get<std::string>().ends_with(".safetensors") &&
                       part.get<std::string>().find_first_of("/\\") == std::string::npos;
    if (!plain)
      throw failure(path + ": tensor " + detail::quoted(name) + " is in " + json_text(part) +
                    ", which names no safetensors file of the folder");
    parts.emplace(name, part.get<std::string>());
  }
  return parts;
}

class safetensors_parts final : public tensor_source {
 public:
  safetensors_parts(std::string folder, std::string const& index) : path_(std::move(folder)) {
    auto const expected = read_index(index);
    std::set<std::string> names;
    for (auto const& [tensor, part] : expected) names.insert(part);
    for (auto const& name : names) {
      parts_.emplace_back(path_ + "/" + name);
      for (auto const& tensor : parts_.back().tensors()) {
        auto const entry = expected.find(tensor.name);
        if (entry == expected.end() || entry->second != name)
          throw failure(
              parts_.back().path() + ": tensor " + detail::quoted(tensor.name) +
              " is in this part; " + index + " says " +
              (entry == expected.end() ? "nothing of it" : detail::quoted(entry->second)));
        places_.emplace_back(parts_.size() - 1, places_.size() - first_of_part_);
        tensors_.push_back(tensor);
      }
      first_of_part_ = places_.size();
    }
    check_complete(expected, index);
  }

  std::string const& path() const noexcept override { return path_; }
  std::vector<tensor_info> const& tensors() const noexcept override { return tensors_; }
  void read_part(std::size_t index, std::int64_t first, std::span<float> to) const override {
    auto const [part, at] = places_.at(index);
    parts_[part].read_part(at, first, to);
  }
  void forget() const noexcept override {
    for (auto const& part : parts_) part.forget();
  }

 private:
  /// Each tensor that was found is of the index and in one part, so counting is enough.
  void check_complete(weight_map const& expected, std::string const& index) const {
    if (tensors_.size() == expected.size()) return;
    std::vector<std::string_view> found;
    for (auto const& tensor : tensors_) found.push_back(tensor.name);
    std::ranges::sort(found);
    for (auto const& [name, part] : expected)
      if (!std::ranges::binary_search(found, std::string_view(name)))
        throw failure(path_ + "/" + part + ": lacks tensor " + detail::quoted(name) + ", which " +
                      index + " says is in it");
  }

  std::string path_;
  std::vector<safetensors_file> parts_;
  std::vector<tensor_info> tensors_;
  std::vector<std::pair<std::size_t, std::size_t>> places_;  // part, and index there
  std::size_t first_of_part_ = 0;
};

}  // namespace

std::unique_ptr<tensor_source> open_safetensors_folder(std::string const& folder) {
  auto const whole = folder + "/model.safetensors",
             index = folder + "/model.safetensors.index.json";
  std::error_code unknown;
  if (std::filesystem::exists(whole, unknown)) return std::make_unique<safetensors_file>(whole);
  if (std::filesystem::exists(index, unknown))
    return std::make_unique<safetensors_parts>(folder, index);
  throw failure(folder + ": has neither model.safetensors nor model.safetensors.index.json");
}

}  // namespace lm
