// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How checkpoints get into files and out of them; included by checkpoint.hpp.
#pragma once

#include "checkpoint.hpp"
#include "output_file.hpp"

namespace lm {

namespace detail {

inline constexpr char checkpoint_magic[] = "strataLM";  // 8 bytes without the final zero
inline constexpr std::uint32_t checkpoint_version = 1;
inline constexpr std::uint64_t longest_header = 16 << 20;

/// The 24 bytes at the start.
struct checkpoint_preamble {
  char magic[8] = {};
  std::uint32_t version = checkpoint_version;
  std::uint32_t header_crc = 0;
  std::uint64_t header_bytes = 0;
};
static_assert(sizeof(checkpoint_preamble) == 24);

inline std::int64_t up_to_line(std::int64_t offset) noexcept { return (offset + 63) / 64 * 64; }

inline nlohmann::ordered_json tensors_json(tensor_table const& table) {
  auto list = nlohmann::ordered_json::array();
  for (auto const& e : table.entries)
    list.push_back({{"name", e.name}, {"rows", e.rows}, {"cols", e.cols}, {"offset", e.offset}});
  return list;
}

/// The part of a file that is described by its header.
struct section {
  std::string name;
  std::int64_t offset = 0, bytes = 0;
  std::uint32_t crc = 0;
};

/// A file whose preamble and header have been checked.
class checkpoint_reader {
 public:
  explicit checkpoint_reader(std::string const& path) : file_(path, O_RDONLY | O_CLOEXEC) {
    size_ = file_.size();
    read_header();
    try {
      read_config();
      read_sections();
    } catch (nlohmann::json::exception const& error) {
      file_.refuse(std::string("its header lacks something: ") + error.what());
    }
  }

  model_config const& config() const noexcept { return config_; }
  nlohmann::ordered_json const& header() const noexcept { return header_; }
  bool has(std::string_view name) const noexcept { return find(name) != nullptr; }
  /// Of the adapters; 0 where the file has none.
  std::int64_t rank() const { return header_.value("adapter_rank", std::int64_t{0}); }

  parameters<float> read(std::string_view name) const {
    parameters<float> values(config_);
    read(section_of(name), values.values());
    return values;
  }
  /// The same of adapters.
  std::vector<float> read_adapters(std::string_view name) const {
    auto const& s = section_of(name);
    std::vector<float> values(static_cast<std::size_t>(s.bytes) / sizeof(float));
    read(s, values);
    return values;
  }

 private:
  section const& section_of(std::string_view name) const {
    auto const* const s = find(name);
    if (s == nullptr) file_.refuse("has no section '" + std::string(name) + "'");
    return *s;
  }
  void read(section const& s, std::span<float> values) const {
    file_.read(s.offset, values.data(), s.bytes);
    auto const crc = strata::crc32c(std::as_bytes(values));
    if (crc != s.crc)
      file_.refuse("is damaged: the checksum of its section '" + s.name + "' is " +
                   std::to_string(crc) + ", should be " + std::to_string(s.crc));
  }

  section const* find(std::string_view name) const noexcept {
    for (auto const& s : sections_)
      if (s.name == name) return &s;
    return nullptr;
  }

  void read_header() {
    checkpoint_preamble preamble;
    if (size_ < static_cast<std::int64_t>(sizeof(preamble)))
      file_.refuse("is no model of strata-lm: it has " + std::to_string(size_) +
                   " bytes, the shortest preamble has " + std::to_string(sizeof(preamble)));
    file_.read(0, &preamble, sizeof(preamble));
    if (std::memcmp(preamble.magic, checkpoint_magic, sizeof(preamble.magic)) != 0)
      file_.refuse("is no model of strata-lm: it does not begin with 'strataLM'");
    if (preamble.version != checkpoint_version)
      file_.refuse("has version " + std::to_string(preamble.version) + "; this program reads " +
                   std::to_string(checkpoint_version));
    if (preamble.header_bytes > longest_header)
      file_.refuse("its header claims " + std::to_string(preamble.header_bytes) +
                   " bytes; the most is " + std::to_string(longest_header));
    auto const bytes = static_cast<std::int64_t>(preamble.header_bytes);
    header_end_ = static_cast<std::int64_t>(sizeof(preamble)) + bytes;
    if (header_end_ > size_)
      file_.refuse("is truncated: it has " + std::to_string(size_) + " bytes, its header ends at " +
                   std::to_string(header_end_));
    std::string text(static_cast<std::size_t>(bytes), '\0');
    file_.read(sizeof(preamble), text.data(), bytes);
    if (auto const crc = strata::crc32c(std::as_bytes(std::span(text))); crc != preamble.header_crc)
      file_.refuse("is damaged: the checksum of its header is " + std::to_string(crc) +
                   ", should be " + std::to_string(preamble.header_crc));
    header_ = nlohmann::ordered_json::parse(text, nullptr, false);
    if (!header_.is_object()) file_.refuse("its header is no JSON object");
  }

  /// What is wrong with a shape knows no file; the file's own refusals do.
  void read_config() {
    try {
      config_ = config_from_json(header_.at("config"));
    } catch (failure const& error) {
      file_.refuse(error.what());
    }
  }

  /// Bytes of the adapters' values, 0 of a file that has none.
  std::int64_t adapter_bytes() const {
    if (rank() < 0 || rank() > config_.dim)
      file_.refuse("its adapter_rank is " + std::to_string(rank()) +
                   "; it must lie between 0 and the width, " + std::to_string(config_.dim));
    if (rank() == 0) return 0;
    return adapter_table(config_, rank()).tensors.size * static_cast<std::int64_t>(sizeof(float));
  }

  /// Sections lie one behind the other up to the file's end, each as large as the model's table or,
  /// of those that are called so, the adapters'.
  void read_sections() {
    auto const table = make_tensor_table(config_);
    if (header_.at("tensors") != tensors_json(table))
      file_.refuse("its tensors are not those of its config");
    auto const of_model = table.size * static_cast<std::int64_t>(sizeof(float));
    auto const of_adapters = adapter_bytes();
    auto end = header_end_;
    for (auto const& json : header_.at("sections")) {
      section s{json.at("name"), json.at("offset"), json.at("bytes"), json.at("crc32c")};
      auto const expected = up_to_line(end);
      auto const bytes = s.name.starts_with("adapters") ? of_adapters : of_model;
      if (s.offset != expected || s.bytes != bytes)
        file_.refuse("its section '" + s.name + "' lies at " + std::to_string(s.offset) + " with " +
                     std::to_string(s.bytes) + " bytes; should lie at " + std::to_string(expected) +
                     " with " + std::to_string(bytes));
      if (bytes > size_ - expected)
        file_.refuse("is truncated: it has " + std::to_string(size_) + " bytes, its section '" +
                     s.name + "' ends at " + std::to_string(expected + bytes));
      end = expected + bytes;
      sections_.push_back(std::move(s));
    }
    if (end != size_)
      file_.refuse("has " + std::to_string(size_) + " bytes, should have " + std::to_string(end));
  }

  file file_;
  std::int64_t size_ = 0;
  std::int64_t header_end_ = 0;
  nlohmann::ordered_json header_;
  model_config config_;
  std::vector<section> sections_;
};

/// The header with sections placed behind it. Their offsets are part of it, so its length is found
/// by writing it until it stays.
inline std::string place_sections(nlohmann::ordered_json& header) {
  for (auto text = header.dump();; text = header.dump()) {
    auto end = static_cast<std::int64_t>(sizeof(checkpoint_preamble) + text.size());
    for (auto& s : header["sections"]) {
      s["offset"] = up_to_line(end);
      end = up_to_line(end) + s["bytes"].get<std::int64_t>();
    }
    if (header.dump() == text) return text;
  }
}

}  // namespace detail

inline void save_checkpoint(std::string const& path, parameters<float> const& weights,
                            moments_view optimizer, nlohmann::ordered_json const& training) {
  std::vector<std::pair<char const*, std::span<float const>>> sections = {
      {"weights", weights.values()}};
  if (optimizer.first != nullptr) {
    sections.emplace_back("first_moment", optimizer.first->values());
    sections.emplace_back("second_moment", optimizer.second->values());
  }
  nlohmann::ordered_json header = {{"config", to_json(weights.config())},
                                   {"tensors", detail::tensors_json(weights.table())},
                                   {"sections", nlohmann::ordered_json::array()},
                                   {"training", training}};
  if (auto const& adapters = optimizer.adapters; adapters.base != nullptr) {
    header["adapter_rank"] = adapters.rank;
    sections.emplace_back("base", adapters.base->values());
    sections.emplace_back("adapters", adapters.values);
    sections.emplace_back("adapters_first", adapters.first);
    sections.emplace_back("adapters_second", adapters.second);
  }
  for (auto const& [name, values] : sections)
    header["sections"].push_back({{"name", name},
                                  {"offset", 0},
                                  {"bytes", values.size_bytes()},
                                  {"crc32c", strata::crc32c(std::as_bytes(values))}});
  auto const text = detail::place_sections(header);
  detail::checkpoint_preamble preamble;
  std::memcpy(preamble.magic, detail::checkpoint_magic, sizeof(preamble.magic));
  preamble.header_crc = strata::crc32c(std::as_bytes(std::span(text)));
  preamble.header_bytes = text.size();
  detail::replace_file(path, [&](detail::file const& out) {
    static constexpr char zeros[64] = {};
    out.write(&preamble, sizeof(preamble));
    out.write(text.data(), static_cast<std::int64_t>(text.size()));
    auto end = static_cast<std::int64_t>(sizeof(preamble) + text.size());
    for (auto const& [name, values] : sections) {
      out.write(zeros, detail::up_to_line(end) - end);
      out.write(values.data(), static_cast<std::int64_t>(values.size_bytes()));
      end = detail::up_to_line(end) + static_cast<std::int64_t>(values.size_bytes());
    }
  });
}

inline checkpoint load_checkpoint(std::string const& path, bool with_optimizer) {
  detail::checkpoint_reader const reader(path);
  checkpoint loaded{
      reader.read("weights"), {}, reader.header().value("training", nlohmann::ordered_json())};
  if (with_optimizer && reader.has("first_moment"))
    loaded.optimizer = moments{reader.read("first_moment"), reader.read("second_moment")};
  if (with_optimizer && reader.rank() > 0)
    loaded.adapters = adapter_state{
        reader.rank(), reader.read("base"), reader.read_adapters("adapters"),
        reader.read_adapters("adapters_first"), reader.read_adapters("adapters_second")};
  return loaded;
}

inline model_config load_config(std::string const& path) {
  return detail::checkpoint_reader(path).config();
}

inline nlohmann::ordered_json load_training(std::string const& path) {
  return detail::checkpoint_reader(path).header().value("training", nlohmann::ordered_json());
}

}  // namespace lm
