// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "named_weights.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "../failure.hpp"
#include "../fit.hpp"
#include "named.hpp"

namespace lm {
namespace {

/// Names of a source in order, so that a model is found in it in n log n.
class name_index {
 public:
  name_index(tensor_source const& source, char const* whose) : source_(source), whose_(whose) {
    for (std::size_t i = 0; i < source.tensors().size(); ++i)
      sorted_.emplace_back(source.tensors()[i].name, i);
    std::ranges::sort(sorted_);
    taken_.resize(sorted_.size());
  }

  /// The tensor's index. Throws where it is not there or has another shape.
  std::size_t take(std::string const& name, std::vector<std::int64_t> const& shape) {
    auto const at =
        std::ranges::lower_bound(sorted_, std::string_view(name), {}, &named_tensor::first);
    if (at == sorted_.end() || at->first != name) refuse(name, "is missing");
    auto const& tensor = source_.tensors()[at->second];
    if (tensor.shape != shape)
      refuse(name, "has shape " + detail::shape_text(tensor.shape) + "; " + whose_ + " is " +
                       detail::shape_text(shape));
    taken_[at->second] = true;
    return at->second;
  }

  void check_rest(bool (*may_ignore)(std::string const& name)) const {
    for (std::size_t i = 0; i < taken_.size(); ++i)
      if (auto const& name = source_.tensors()[i].name; !taken_[i] && !may_ignore(name))
        refuse(name, "has no place in a model of this program");
  }

 private:
  using named_tensor = std::pair<std::string_view, std::size_t>;

  [[noreturn]] void refuse(std::string const& name, std::string const& why) const {
    throw failure(source_.path() + ": tensor " + detail::quoted(name) + " " + why);
  }

  tensor_source const& source_;
  char const* whose_;
  std::vector<named_tensor> sorted_;
  std::vector<bool> taken_;
};

/// Where the source has each of a model's tensors; [entries]. Throws as read_weights says.
std::vector<std::size_t> find_all(tensor_source const& source, tensor_table const& table,
                                  tensor_names const& names,
                                  bool (*may_ignore)(std::string const& name)) {
  std::vector<wanted_tensor> wanted;
  for (auto const& entry : table.entries) wanted.push_back({names.of(entry), shape_of(entry)});
  return find_tensors(source, wanted, may_ignore);
}

}  // namespace

std::vector<std::size_t> find_tensors(tensor_source const& source,
                                      std::vector<wanted_tensor> const& wanted,
                                      bool (*may_ignore)(std::string const& name),
                                      char const* whose) {
  name_index index(source, whose);
  std::vector<std::size_t> found;
  for (auto const& tensor : wanted) found.push_back(index.take(tensor.name, tensor.shape));
  index.check_rest(may_ignore);
  return found;
}

std::string tensor_names::of(tensor_entry const& entry) const {
  auto const dot = entry.name.rfind('.');
  auto const own = entry.name.substr(dot == std::string::npos ? 0 : dot + 1);
  auto const found = std::ranges::find(names, own, &std::pair<std::string, std::string>::first);
  if (found == names.end()) throw failure("'" + entry.name + "' has no name in such files");
  if (dot == std::string::npos) return found->second;
  auto const number = entry.name.substr(0, dot).substr(std::string("layers.").size());
  return layer + number + "." + found->second;
}

std::vector<std::int64_t> shape_of(tensor_entry const& entry) {
  if (entry.role == tensor_role::norm) return {entry.cols};
  return {entry.rows, entry.cols};
}

parameters<float> read_weights(tensor_source const& source, model_config const& config,
                               tensor_names const& names,
                               bool (*may_ignore)(std::string const& name)) {
  auto const table = make_tensor_table(config);
  auto const found = find_all(source, table, names, may_ignore);
  require_fit(table.size * static_cast<std::int64_t>(sizeof(float)), available_memory(),
              "the weights of " + source.path(), "this machine");
  parameters<float> weights(config);
  for (std::size_t i = 0; i < found.size(); ++i)
    source.read(found[i], weights.tensor(weights.table().entries[i]));
  return weights;
}

narrow_weights read_narrow_weights(tensor_source const& source, model_config const& config,
                                   tensor_names const& names,
                                   bool (*may_ignore)(std::string const& name)) {
  auto const found = find_all(source, make_tensor_table(config), names, may_ignore);
  require_fit(narrow_weights::bytes(config), available_memory(),
              "the weights of " + source.path() + " in bf16", "this machine");
  narrow_weights weights(config);
  for (std::size_t i = 0; i < found.size(); ++i)
    read_in_parts(source, found[i], [&](std::int64_t first, std::span<float const> part) {
      weights.set(i, first, part);
    });
  return weights;
}

weight_type stored_type(tensor_source const& source) {
  auto const other = [](tensor_info const& t) { return t.shape.size() > 1 && t.type != "BF16"; };
  return std::ranges::any_of(source.tensors(), other) ? weight_type::f32 : weight_type::bf16;
}

}  // namespace lm
