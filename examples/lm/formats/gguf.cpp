// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gguf.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "../failure.hpp"
#include "named.hpp"

namespace lm {

static_assert(std::endian::native == std::endian::little, "GGUF files are little endian");

namespace {

constexpr char magic[] = "GGUF";  // 4 bytes without the final zero
constexpr std::uint64_t largest_alignment = 1 << 20;
constexpr std::uint64_t longest_key = 65535, longest_tensor_name = 64;  // the format's own bounds
constexpr std::uint32_t most_dimensions = 4;
constexpr std::size_t shortest_pair = 8 + 1 + 4 + 1;  // length, key, kind, value
constexpr std::size_t shortest_tensor =
    8 + 1 + 4 + 4 + 8;  // length, name, dimensions, type, offset

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) noexcept {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace

namespace detail {

/// Reads a file from front to end. What it takes is there, or it throws.
class gguf_parser {
 public:
  explicit gguf_parser(gguf_file& file) : file_(file) {}

  void parse() {
    read_header();
    read_metadata();
    read_alignment();
    for (std::uint64_t i = 0; i < num_tensors_; ++i) read_tensor();
    check_names();
    place_tensors();
  }

 private:
  [[noreturn]] void refuse(std::string const& why) const {
    throw failure(file_.path_ + ": " + why);
  }
  [[noreturn]] void refuse_tensor(tensor_info const& tensor, std::string const& why) const {
    refuse("tensor " + detail::quoted(tensor.name) + " " + why);
  }

  std::uint64_t left() const noexcept { return file_.bytes_.size() - at_; }

  /// So many bytes from here on, which are `what`.
  std::span<std::byte const> take(std::uint64_t count, char const* what) {
    if (count > left())
      refuse(std::string("is truncated: ") + what + " takes " + std::to_string(count) +
             " bytes from byte " + std::to_string(at_) + " on; the file has " +
             std::to_string(file_.bytes_.size()));
    auto const taken = file_.bytes_.subspan(at_, static_cast<std::size_t>(count));
    at_ += static_cast<std::size_t>(count);
    return taken;
  }
  template <class T>
  T number(char const* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string_view string(char const* what, std::uint64_t longest) {
    auto const length = number<std::uint64_t>(what);
    if (length == 0 || length > longest)
      refuse(std::string(what) + " before byte " + std::to_string(at_) + " has " +
             std::to_string(length) + " bytes; it must have 1 to " + std::to_string(longest));
    auto const bytes = take(length, what);
    return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
  }
  /// A count of things that take `least` bytes each at the least: no file can claim more than it
  /// has.
  std::uint64_t count(char const* what, std::uint64_t claimed, std::size_t least) const {
    if (claimed > left() / least)
      refuse("claims " + std::to_string(claimed) + " " + what + "; the " + std::to_string(left()) +
             " bytes after byte " + std::to_string(at_) + " hold at most " +
             std::to_string(left() / least));
    return claimed;
  }

  void read_header() {
    if (!gguf_file::recognises(file_.bytes_))
      refuse("is no GGUF file: it does not begin with 'GGUF'");
    static_cast<void>(take(4, "the magic"));
    auto const version = number<std::uint32_t>("the version");
    if (version == 2U << 24 || version == 3U << 24)
      refuse("is big endian; this program reads little endian GGUF files");
    if (version != 2 && version != 3)
      refuse("has version " + std::to_string(version) + " of GGUF; this program reads 2 and 3");
    num_tensors_ = number<std::uint64_t>("the number of tensors");
    num_pairs_ = number<std::uint64_t>("the number of keys");
    count("keys", num_pairs_, shortest_pair);
    count("tensors", num_tensors_, shortest_tensor);
  }

  void read_metadata() {
    std::vector<gguf_metadata::entry>
        entries;  // grows with what is there, not with what is claimed
    for (std::uint64_t i = 0; i < num_pairs_; ++i) {
      auto const key = string("a key", longest_key);
      entries.push_back({key, read_value(key)});
    }
    file_.metadata_ = gguf_metadata(file_.path_, std::move(entries));
  }

  gguf_value read_value(std::string_view key) {
    gguf_value value;
    value.kind = gguf_kind{number<std::uint32_t>("a kind")};
    value.is_list = value.kind == gguf_kind::array;
    if (value.is_list) value.kind = gguf_kind{number<std::uint32_t>("a kind")};
    if (value.kind == gguf_kind::array)
      refuse(detail::quoted(key) + " is a list of lists, which this program does not read");
    auto const bytes = gguf_kind_bytes(value.kind);
    bool const is_string = value.kind == gguf_kind::string;
    if (bytes == 0 && !is_string)
      refuse(detail::quoted(key) + " has kind " + gguf_kind_name(value.kind) +
             "; the kinds are 0 to 12");
    if (value.is_list)
      value.count = count(("elements of " + detail::quoted(key)).c_str(),
                          number<std::uint64_t>("a length"), is_string ? 8 : bytes);
    auto const start = at_;
    if (is_string)
      for (std::uint64_t i = 0; i < value.count; ++i)
        static_cast<void>(take(number<std::uint64_t>("a length"), "a string"));
    else
      static_cast<void>(take(value.count * bytes, "a value"));  // `count` has bounded it
    value.bytes = file_.bytes_.subspan(start, at_ - start);
    if (value.kind == gguf_kind::boolean)
      for (auto const truth : value.bytes)
        if (truth > std::byte{1})
          refuse(detail::quoted(key) + " is a bool of value " +
                 std::to_string(std::to_integer<int>(truth)));
    return value;
  }

  void read_alignment() {
    constexpr char const* key = "general.alignment";
    if (!file_.metadata_.has(key)) return;
    alignment_ = static_cast<std::uint64_t>(
        file_.metadata_.integer(key, 1, std::int64_t{largest_alignment}));
    if (!std::has_single_bit(alignment_))
      file_.metadata_.refuse(key,
                             "is " + std::to_string(alignment_) + "; it must be a power of two");
  }

  void read_tensor() {
    tensor_info tensor;
    tensor.name = string("a tensor's name", longest_tensor_name);
    auto const dimensions = number<std::uint32_t>("a number of dimensions");
    if (dimensions > most_dimensions)
      refuse_tensor(tensor, "has " + std::to_string(dimensions) + " dimensions; the most is " +
                                std::to_string(most_dimensions));
    for (std::uint32_t d = 0; d < dimensions; ++d) {
      auto const extent = number<std::uint64_t>("an extent");
      if (extent == 0 || !std::in_range<std::int64_t>(extent))
        refuse_tensor(tensor, "has an extent of " + std::to_string(extent));
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(extent));
    }
    auto const type = number<std::uint32_t>("a type");
    gguf_file::placed place;
    place.type = find_ggml_type(type);
    if (place.type == nullptr)
      refuse_tensor(tensor, "has type " + ggml_type_name(type) + "; this program reads " +
                                readable_ggml_types());
    tensor.type = place.type->name;
    place.offset = number<std::uint64_t>("an offset");
    measure(tensor, place);
    file_.tensors_.push_back(std::move(tensor));
    file_.places_.push_back(place);
  }

  /// Blocks and bytes of a tensor; as floats it can be counted, too.
  void measure(tensor_info const& tensor, gguf_file::placed& place) const {
    auto const& type = *place.type;
    std::int64_t elements = 1, floats = 0;
    bool overflow = false;
    for (auto const extent : tensor.shape)
      overflow = overflow || __builtin_mul_overflow(elements, extent, &elements);
    overflow = overflow || __builtin_mul_overflow(elements, std::int64_t{4}, &floats);
    if (overflow)
      refuse_tensor(tensor, "has shape " + shape_text(tensor.shape) + ", more than 2^61 elements");
    auto const row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (row % type.elements != 0)
      refuse_tensor(tensor, "has rows of " + std::to_string(row) + " elements; blocks of " +
                                type.name + " have " + std::to_string(type.elements));
    place.blocks = elements / type.elements;
    // A block takes at most 4 bytes for each element, so that these fit where the floats did.
    place.bytes = static_cast<std::uint64_t>(place.blocks * type.bytes);
  }

  void check_names() const {
    std::vector<std::string_view> names;
    for (auto const& tensor : file_.tensors_) names.push_back(tensor.name);
    std::ranges::sort(names);
    auto const twice = std::ranges::adjacent_find(names);
    if (twice != names.end())
      refuse("tensor " + detail::quoted(*twice) + " is there more than once");
  }

  /// Offsets count from where the data begin. Each tensor lies within the file and in no other.
  void place_tensors() {
    auto const begin = round_up(at_, alignment_);
    auto const size = std::uint64_t{file_.bytes_.size()};
    auto const room = size > begin ? size - begin : 0;
    std::vector<std::size_t> order(file_.places_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [&](std::size_t i) { return file_.places_[i].offset; });
    std::uint64_t end = 0;
    for (auto const i : order) {
      auto& place = file_.places_[i];
      auto const& tensor = file_.tensors_[i];
      auto const where = "lies at offset " + std::to_string(place.offset) + " with " +
                         std::to_string(place.bytes) + " bytes; ";
      if (place.offset % alignment_ != 0)
        refuse_tensor(tensor, where + "the alignment is " + std::to_string(alignment_));
      if (place.offset > room || place.bytes > room - place.offset)
        refuse_tensor(tensor, where + "the file has " + std::to_string(room) + " behind byte " +
                                  std::to_string(begin) + ", as if its end were cut off");
      if (place.offset < end)
        refuse_tensor(tensor, where + "the tensor before it ends at " + std::to_string(end));
      end = place.offset + place.bytes;
      place.offset += begin;
    }
  }

  gguf_file& file_;
  std::size_t at_ = 0;
  std::uint64_t num_tensors_ = 0, num_pairs_ = 0;
  std::uint64_t alignment_ = 32;  // where the file does not say
};

}  // namespace detail

gguf_file::gguf_file(std::string const& path) : file_(path), bytes_(file_.bytes()), path_(path) {
  detail::gguf_parser(*this).parse();
}

gguf_file::gguf_file(std::span<std::byte const> bytes, std::string name)
    : bytes_(bytes), path_(std::move(name)) {
  detail::gguf_parser(*this).parse();
}

bool gguf_file::recognises(std::span<std::byte const> bytes) noexcept {
  return bytes.size() >= 4 && std::memcmp(bytes.data(), magic, 4) == 0;
}

void gguf_file::read_part(std::size_t index, std::int64_t first, std::span<float> to) const {
  check_part(index, first, to.size());
  auto const& place = places_[index];
  auto const& type = *place.type;  // of whose blocks rows are made
  auto const from = place.offset + static_cast<std::uint64_t>(first / type.elements * type.bytes);
  type.decode(bytes_.data() + from, static_cast<std::int64_t>(to.size()) / type.elements,
              to.data());
}

}  // namespace lm
