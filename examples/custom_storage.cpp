// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A cache storage of one's own: K and V in a memory-mapped file, so that the cache may be larger
// than memory. A storage says where tensors lie and grows sequences all or nothing; `sequence_book`
// keeps plans, lengths and positions for it.
#include <strata/strata.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <utility>
#include <vector>

/// K and V of every layer and sequence as [2, max_sequences, num_layers, max_tokens, kv_heads, dim]
/// in one file; for models whose layers are all alike. Pages that no leader writes cost no disk.
template <strata::kv_codec Codec>
class mapped_storage {
 public:
  using k_codec = Codec;
  using v_codec = Codec;

  static strata::result<mapped_storage> make(strata::kv_classes const& classes, std::FILE* file,
                                             std::int32_t max_sequences, std::int32_t max_tokens) {
    if (auto const s = classes.check(); !s.ok()) return s;
    auto const& kv = classes[{0}].kv;
    if (classes.num_kinds() != 1 || kv.k_dim != kv.v_dim)
      return strata::status{strata::errc::unsupported, strata::no_layer, classes.num_kinds(), 1};
    mapped_storage storage;
    storage.classes_ = classes;
    storage.max_tokens_ = max_tokens;
    if (auto const s = storage.book_.prepare(max_sequences, max_tokens); !s.ok()) return s;
    // The book has multiplied max_sequences and max_tokens without overflow.
    auto const tokens = std::int64_t{max_sequences} * max_tokens;
    auto const rows = strata::checked_multiply(tokens, 2 * classes.num_layers());  // of K and of V
    if (!rows.ok()) return rows.state();
    auto const bytes = strata::checked_multiply(*rows, Codec::row_bytes(kv.k_dim) * kv.kv_heads);
    if (!bytes.ok()) return bytes.state();
    storage.side_bytes_ = static_cast<std::size_t>(*bytes / 2);
    if (ftruncate(fileno(file), *bytes) != 0)
      return strata::status{strata::errc::out_of_memory, strata::no_layer, *bytes, 0};
    void* const memory =
        mmap(nullptr, 2 * storage.side_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    if (memory == MAP_FAILED)
      return strata::status{strata::errc::out_of_memory, strata::no_layer, *bytes, 0};
    storage.memory_ = static_cast<std::byte*>(memory);
    return storage;
  }

  mapped_storage(mapped_storage&& other) noexcept
      : classes_(other.classes_),
        book_(std::move(other.book_)),
        memory_(std::exchange(other.memory_, nullptr)),
        side_bytes_(other.side_bytes_),
        max_tokens_(other.max_tokens_) {}
  ~mapped_storage() {
    if (memory_ != nullptr) munmap(memory_, 2 * side_bytes_);
  }

  strata::kv_classes const& classes() const noexcept { return classes_; }
  strata::result<strata::sequence_id> open(strata::route_plan const& plan) noexcept {
    return book_.open(plan, classes_.num_layers());
  }
  strata::status close(strata::sequence_id id) noexcept { return book_.close(id); }
  strata::route_plan const& plan(strata::sequence_id id) const noexcept { return book_.plan(id); }
  std::int32_t length(strata::sequence_id id) const noexcept { return book_.length(id); }
  std::int32_t next_position(strata::sequence_id id) const noexcept {
    return book_.next_position(id);
  }
  strata::position_table positions() const noexcept { return book_.positions(); }

  strata::status reserve(std::span<strata::growth const> growths) noexcept {
    if (auto const s = book_.check(growths); !s.ok())
      return s;  // room is fixed: nothing else to ask
    book_.stage(growths);
    return {};
  }
  void commit() noexcept { book_.commit(); }
  void abandon() noexcept { book_.forget(); }

  strata::writable_blocks k_blocks(strata::layer_id) noexcept { return blocks(memory_); }
  strata::writable_blocks v_blocks(strata::layer_id) noexcept {
    return blocks(memory_ + side_bytes_);
  }
  std::int32_t k_row(strata::sequence_id id, strata::layer_id source) const noexcept {
    return id.index * classes_.num_layers() + source.index;
  }
  std::int32_t v_row(strata::sequence_id id, strata::layer_id source) const noexcept {
    return k_row(id, source);
  }

 private:
  mapped_storage() = default;

  strata::writable_blocks blocks(std::byte* data) const noexcept {
    auto const& kv = classes_[{0}].kv;
    return strata::nhd_blocks<Codec>(data, max_tokens_, kv.kv_heads, kv.k_dim);
  }

  strata::kv_classes classes_;
  strata::sequence_book book_;
  std::byte* memory_ = nullptr;
  std::size_t side_bytes_ = 0;  // of K, and of V
  std::int32_t max_tokens_ = 0;
};
static_assert(strata::cache_storage<mapped_storage<strata::f16_codec>>);

/// Five tokens through six layers over any storage; the last layer's output.
template <class Storage>
std::vector<float> serve(Storage storage, strata::route_plan const& plan) {
  strata::stack server(std::move(storage), strata::reference_attention{});
  auto const sequence = *server.open(plan);
  std::vector<float> x(5 * 32), out(5 * 32);  // [tokens, heads * dim]
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
  std::vector<std::byte> workspace(4096);
  strata::serial_executor here;
  auto step = server.begin({sequence, 5, strata::logits::all});
  for (strata::layer_id layer{0}; layer.index < 6; ++layer.index) {
    for (auto const& run : step.k_writers(layer)) run.store_all(x.data());
    for (auto const& run : step.v_writers(layer)) run.store_all(x.data());
    strata::layer_queries<float> const q{.q = x.data(), .out = out.data(), .q_heads = 2};
    if (!step.attend(here, layer, q, workspace).ok()) return {};
    x = out;
  }
  return step.commit().ok() ? x : std::vector<float>{};
}

int main() {
  auto const model =
      strata::kv_classes::uniform(6, {.kv = {.kv_heads = 2, .k_dim = 16, .v_dim = 16}});
  auto const plan = *strata::make_plan(strata::grouped_map(6, 3), model);
  std::FILE* const file = std::tmpfile();
  if (file == nullptr) return std::puts("no temporary file"), 1;
  auto mapped = mapped_storage<strata::f16_codec>::make(model, file, 2, 64);
  if (!mapped.ok()) return std::puts(strata::describe(mapped.state()).c_str()), 1;

  auto const from_file = serve(std::move(*mapped), plan);
  auto const from_memory = serve(strata::contiguous_storage<strata::f16_codec>(
                                     model, strata::contiguous_options::for_plan(plan, 1, 64)),
                                 plan);
  std::fclose(file);
  bool const equal = !from_file.empty() && from_file == from_memory;
  std::printf("attention over the file and over memory: %s\n",
              equal ? "the same bits" : "DIFFERENT");
  return equal ? 0 : 1;
}
