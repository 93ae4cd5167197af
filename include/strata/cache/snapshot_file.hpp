// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Snapshots as files: written so that a crash leaves the old one or the new one, whole, and mapped
// into memory to be read. POSIX only; not part of strata.hpp.
//
//     snapshot_options const options{.model = hash_of_weights};
//     if (auto const s = write_snapshot_file("chat.kv", storage, ids, options); !s.ok()) return s;
//     ...
//     auto const file = snapshot_file::map("chat.kv");
//     if (!file.ok()) return file.state();
//     auto const count = restore(storage, file->bytes(), options, ids);
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <strata/cache/snapshot.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/new_file.hpp>
#include <strata/detail/posix_files.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// `save` to a file, in place of the one that `path` names, if there is any. What is refused leaves
/// that as it was, to the last byte, and no other file beside it; errors of the system come with
/// errno as their value. One case is none of that: `file_not_durable` says that the new file is in
/// its place, but that a crash might still bring the old one back.
///
/// It is written to a new file of the folder (`<name>.new.<process>.<number>`, which a crash may
/// leave there), of mode 0600, synchronised, renamed, and the folder is synchronised. So whoever
/// reads sees the old or the new one, and a file that is mapped stays what it was; of several who
/// write at once the last one wins. A link that `path` names is replaced itself. Waits for the disk;
/// takes 21 KB of stack and no other memory.
template <class Storage, class Files = detail::posix_files>
status write_snapshot_file(char const* path, Storage const& storage,
                           std::span<sequence_id const> ids, snapshot_options const& options,
                           Files files = {}) noexcept {
  detail::new_file<Files> file(files);
  if (auto const s = file.open(path); !s.ok()) return s;
  if (auto const s = save(storage, ids, options, file); !s.ok()) return s;
  return file.put_in_place();
}

/// The bytes of a file, for `restore` and `restore_subset`. Move-only.
class snapshot_file {
 public:
  /// Bytes that come from the file as they are looked at: for files that nobody writes to while they
  /// are mapped. `write_snapshot_file` never does; it replaces them. Where somebody makes a mapped
  /// file shorter, the system ends whoever looks beyond its end with SIGBUS, and what changes after
  /// `restore` has checked it is not checked again.
  template <class Files = detail::posix_files>
  static result<snapshot_file> map(char const* path, Files files = {}) noexcept {
    return take(path, files, [&](snapshot_file& to, int file, std::int64_t bytes) -> status {
      to.mapped_ = files.map(file, static_cast<std::size_t>(bytes));
      if (to.mapped_ == nullptr) return {errc::cannot_read_file, no_layer, errno, 0};
      to.size_ = bytes;
      return {};
    });
  }

  /// Bytes in memory of their own: for files that others may write to. Whatever they do, `restore`
  /// sees one and the same content.
  template <class Files = detail::posix_files>
  static result<snapshot_file> read(char const* path, Files files = {}) noexcept {
    return take(path, files, [&](snapshot_file& to, int file, std::int64_t bytes) -> status {
      if (auto const s = to.copy_.grow(bytes); !s.ok()) return s;
      to.size_ = bytes;
      return read_all(files, file, to.copy_.data(), bytes);
    });
  }

  snapshot_file(snapshot_file&& other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        copy_(std::move(other.copy_)) {}
  snapshot_file& operator=(snapshot_file&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(size_, other.size_);
    std::swap(copy_, other.copy_);
    return *this;
  }
  ~snapshot_file() {
    if (mapped_ != nullptr) detail::posix_files::unmap(mapped_, static_cast<std::size_t>(size_));
  }

  /// 64-byte aligned.
  std::span<std::byte const> bytes() const noexcept {
    return {mapped_ != nullptr ? mapped_ : copy_.data(), static_cast<std::size_t>(size_)};
  }

 private:
  snapshot_file() noexcept = default;

  /// Opens a file, looks what it is and gives it to fill(file, descriptor, bytes).
  template <class Files, class Fill>
  static result<snapshot_file> take(char const* path, Files files, Fill const& fill) noexcept {
    if (path == nullptr) return status{errc::cannot_open_file, no_layer, EFAULT, 0};
    auto const file = detail::uninterrupted([&] { return files.open(path); });
    if (file < 0) return status{errc::cannot_open_file, no_layer, -file, 0};
    snapshot_file made;
    auto const kind = files.kind(file);
    auto outcome = check(kind);
    if (outcome.ok()) outcome = fill(made, file, kind.bytes);
    static_cast<void>(files.close(file));  // it was only read
    if (!outcome.ok()) return outcome;
    return result<snapshot_file>(std::move(made));  // nvcc 13 does not move by itself
  }

  static status check(detail::file_kind const& file) noexcept {
    if (file.error != 0) return {errc::cannot_read_file, no_layer, file.error, 0};
    if (!file.regular) return {errc::no_regular_file};
    if (file.bytes == 0) return {errc::snapshot_truncated};
    if (!std::in_range<std::ptrdiff_t>(file.bytes))
      return {errc::size_overflow, no_layer, file.bytes, 1};
    return {};
  }

  template <class Files>
  static status read_all(Files& files, int file, std::byte* to, std::int64_t bytes) noexcept {
    for (std::int64_t at = 0; at < bytes;) {
      auto const done = detail::uninterrupted(
          [&] { return files.read(file, to + at, static_cast<std::size_t>(bytes - at), at); });
      if (done < 0) return {errc::cannot_read_file, no_layer, -done, 0};
      if (done == 0) return {errc::file_changed, no_layer, at, bytes};
      at += done;
    }
    return {};
  }

  std::byte const* mapped_ = nullptr;
  std::int64_t size_ = 0;
  detail::array<std::byte> copy_;
};

STRATA_NAMESPACE_END
