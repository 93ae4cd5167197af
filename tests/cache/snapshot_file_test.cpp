// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Snapshots as files: whole or not there, whatever fails, and read as they were written.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <strata/cache/snapshot_file.hpp>

#include "support/failing_files.hpp"
#include "support/print.hpp"
#include "support/saved_sequences.hpp"

using namespace support::snapshots;
using strata::errc;
using strata::sequence_id;
using strata::snapshot_file;
using strata::write_snapshot_file;
using support::bytes_of;
using support::failing_files;
using support::faults;

namespace {

/// The sequences of small_file().
struct sequences_to_save {
  small_type storage = make<small_type>();
  std::vector<sequence_id> ids = {*storage.open(only_v()), *storage.open(full())};
  sequences_to_save() {
    grow(storage, ids[0], 10);
    grow(storage, ids[1], 3, 4);
  }
  template <class Files = strata::detail::posix_files>
  strata::status write(std::string const& path, Files files = {}) const {
    return write_snapshot_file(path.c_str(), storage, ids, {42}, files);
  }
};

std::vector<std::byte> const bytes_before = {std::byte{1}, std::byte{2}, std::byte{3}};

using file_names = std::set<std::string>;

}  // namespace

TEST_CASE("a snapshot file has the bytes of the snapshot and is its user's alone") {
  support::temporary_folder const folder;
  sequences_to_save const from;
  auto const path = folder / "chat.kv";
  REQUIRE(from.write(path).ok());
  CHECK(bytes_of(path) == small_file());
  CHECK(folder.names() == file_names{"chat.kv"});
  struct ::stat info = {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  // In place of another, and in the folder where the process is.
  support::put(path, bytes_before);
  REQUIRE(from.write(path).ok());
  CHECK(bytes_of(path) == small_file());
  auto const before = std::filesystem::current_path();
  std::filesystem::current_path(std::filesystem::path(path).parent_path());
  CHECK(from.write("here.kv").ok());
  std::filesystem::current_path(before);
  CHECK(bytes_of(folder / "here.kv") == small_file());
}

TEST_CASE("whatever call fails, the old file is what it was and no other is left") {
  sequences_to_save const from;
  faults none;
  {
    support::temporary_folder const folder;
    REQUIRE(from.write(folder / "chat.kv", failing_files{&none}).ok());
  }
  CHECK(none.open == 0);
  // Synchronised before it is renamed, and the folder after.
  auto log = none.log;
  log.erase(std::unique(log.begin(), log.end()), log.end());
  CHECK(log == std::vector<std::string>{"open folder", "create", "write", "sync file", "close",
                                        "rename", "sync folder", "close"});
  for (std::size_t call = 0; call < none.log.size(); ++call) {
    CAPTURE(none.log[call]);
    support::temporary_folder const folder;
    auto const path = folder / "chat.kv";
    support::put(path, bytes_before);
    faults f;
    f.failing = static_cast<std::int64_t>(call);
    f.error = ENOSPC;
    auto const outcome = from.write(path, failing_files{&f});
    CHECK(f.open == 0);
    CHECK(folder.names() == file_names{"chat.kv"});
    if (call + 1 == none.log.size()) {  // to close what was a name to go by
      CHECK(outcome.ok());
      continue;
    }
    auto const code = call < 2                      ? errc::cannot_open_file
                      : call + 2 == none.log.size() ? errc::file_not_durable
                                                    : errc::cannot_write_file;
    CHECK(outcome == strata::status{code, strata::no_layer, ENOSPC, 0});
    CHECK(bytes_of(path) == (code == errc::file_not_durable ? small_file() : bytes_before));
    // Without an old file there is none.
    support::temporary_folder const empty;
    faults again;
    again.failing = f.failing;
    CHECK(!from.write(empty / "chat.kv", failing_files{&again}).ok());
    CHECK(empty.names() == (code == errc::file_not_durable ? file_names{"chat.kv"} : file_names{}));
  }
}

TEST_CASE("interrupted calls are made again, and a part of a write is followed by the rest") {
  sequences_to_save const from;
  faults none;
  {
    support::temporary_folder const folder;
    REQUIRE(from.write(folder / "chat.kv", failing_files{&none}).ok());
  }
  support::temporary_folder const folder;
  auto const path = folder / "chat.kv";
  for (std::size_t call = 0; call < none.log.size(); ++call) {
    if (none.log[call] == "rename") continue;  // who repeats it cannot tell whether it was done
    CAPTURE(none.log[call]);
    support::put(path, bytes_before);
    faults f;
    f.failing = static_cast<std::int64_t>(call);
    f.error = EINTR;
    CHECK(from.write(path, failing_files{&f}).ok());
    CHECK(f.open == 0);
    CHECK(bytes_of(path) == small_file());
  }
  faults f;
  f.most = 7;
  support::put(path, bytes_before);
  CHECK(from.write(path, failing_files{&f}).ok());
  CHECK(bytes_of(path) == small_file());
  CHECK(f.log.size() > small_file().size() / 7);
  // Nor is a write that does nothing made for ever.
  f.most = 0;
  CHECK(from.write(path, failing_files{&f}).code == errc::cannot_write_file);
  CHECK(bytes_of(path) == small_file());
  CHECK(folder.names() == file_names{"chat.kv"});
}

// A disk of memory, where all that was not synchronised may be lost, or not, each on its own.
TEST_CASE("a crash at any moment leaves the old file or the new one, whole") {
  sequences_to_save const from;
  support::model_disk disk;
  disk.files.push_back({bytes_before, bytes_before});
  disk.now["chat.kv"] = 0;
  disk.durable = disk.now;
  std::int64_t looks = 0;
  auto look = [&] {
    ++looks;
    std::set<std::vector<std::byte>> found;
    CHECK(disk.after_crash("chat.kv", found));
    for (auto const& content : found) CHECK((content == bytes_before || content == small_file()));
    CHECK(!found.empty());
  };
  support::model_files<decltype(look)> const files{&disk, &look};
  REQUIRE(write_snapshot_file("x/chat.kv", from.storage, from.ids, {42}, files).ok());
  CHECK(looks >= 5);
  std::set<std::vector<std::byte>> found;
  REQUIRE(disk.after_crash("chat.kv", found));
  CHECK(found == std::set{small_file()});  // nothing can bring the old one back
  CHECK(disk.now.size() == 1);
}

TEST_CASE("paths that cannot be, and sequences that cannot be saved") {
  support::temporary_folder const folder;
  sequences_to_save const from;
  auto const code = [&](std::string const& path) { return from.write(path); };
  strata::status const missing{errc::cannot_open_file, strata::no_layer, ENOENT, 0};
  CHECK(code(folder / "none/chat.kv") == missing);
  CHECK(code("").code == errc::no_regular_file);
  CHECK(code(folder / "").code == errc::no_regular_file);
  CHECK(code(folder / ".").code == errc::no_regular_file);
  CHECK(code(folder / "..").code == errc::no_regular_file);
  strata::status const too_long{errc::cannot_open_file, strata::no_layer, ENAMETOOLONG, 0};
  CHECK(code(folder / std::string(256, 'x')) == too_long);
  CHECK(code(std::string(5000, '/') + "x") == too_long);
  CHECK(write_snapshot_file(nullptr, from.storage, from.ids, {}).code == errc::cannot_open_file);
  CHECK(snapshot_file::map(nullptr).state().code == errc::cannot_open_file);
  // A folder is not replaced.
  std::filesystem::create_directory(folder / "folder");
  CHECK(code(folder / "folder").code == errc::cannot_write_file);
  sequence_id const unknown[] = {from.ids[0], {3}};
  auto const path = folder / "chat.kv";
  CHECK(write_snapshot_file(path.c_str(), from.storage, unknown, {}).code ==
        errc::unknown_sequence);
  CHECK(folder.names() == file_names{"folder"});
  // The longest name that there is.
  CHECK(code(folder / std::string(255, 'x')).ok());
  CHECK(folder.names().size() == 2);
}

TEST_CASE("files that others left or are writing are not touched") {
  support::temporary_folder const folder;
  sequences_to_save const from;
  auto const path = folder / "chat.kv";
  auto const taken = [&](int number) {
    return path + ".new." + std::to_string(::getpid()) + "." + std::to_string(number);
  };
  for (int number = 0; number < 99; ++number) support::put(taken(number), bytes_before);
  REQUIRE(from.write(path).ok());
  CHECK(folder.names().size() == 100);
  for (int number = 0; number < 99; ++number) CHECK(bytes_of(taken(number)) == bytes_before);
  support::put(taken(99), bytes_before);
  CHECK(from.write(path) == strata::status{errc::cannot_open_file, strata::no_layer, EEXIST, 0});
  CHECK(bytes_of(path) == small_file());
  CHECK(folder.names().size() == 101);
}

TEST_CASE("a file that is mapped or read is taken up as the bytes in memory are") {
  support::temporary_folder const folder;
  sequences_to_save from;
  auto const path = folder / "chat.kv";
  REQUIRE(from.write(path).ok());
  faults slow;
  slow.most = 5;
  auto mapped = *snapshot_file::map(path.c_str());
  auto read = *snapshot_file::read(path.c_str(), failing_files{&slow});
  CHECK(slow.open == 0);
  CHECK(slow.log.size() > small_file().size() / 5);
  snapshot_file moved = std::move(mapped);
  CHECK(mapped.bytes().empty());
  for (auto const* file : {&moved, &read}) {
    CHECK(std::ranges::equal(file->bytes(), small_file()));
    CHECK(reinterpret_cast<std::uintptr_t>(file->bytes().data()) % 64 == 0);
    auto to = make<small_type>(3);
    std::vector<sequence_id> got(2);
    REQUIRE(strata::restore(to, file->bytes(), {42}, got).ok());
    for (std::size_t i = 0; i < 2; ++i) CHECK(same_sequence(from.storage, from.ids[i], to, got[i]));
    auto part = make<small_type>();
    REQUIRE(strata::restore_subset(part, file->bytes(), {42}, shared(), got).ok());
    CHECK(part.approximate(got[0]));
    CHECK(part.plan(got[1]) == shared());
  }
  std::swap(moved, read);
  CHECK(std::ranges::equal(moved.bytes(), read.bytes()));
}

TEST_CASE("a file that is mapped stays what it was when another takes its place") {
  support::temporary_folder const folder;
  sequences_to_save from;
  auto const path = folder / "chat.kv";
  REQUIRE(from.write(path).ok());
  auto const mapped = snapshot_file::map(path.c_str());
  REQUIRE(mapped.ok());
  grow(from.storage, from.ids[0], 5);
  REQUIRE(from.write(path).ok());
  CHECK(std::ranges::equal(mapped->bytes(), small_file()));
  CHECK(bytes_of(path) == saved(from.storage, from.ids));
}

TEST_CASE("what is no file, or none that can be read") {
  support::temporary_folder const folder;
  auto const path = folder / "chat.kv";
  auto const both = [&](std::string const& name, faults const& f = {}) {
    auto a = f, b = f;
    auto const mapped = snapshot_file::map(name.c_str(), failing_files{&a}).state();
    auto const read = snapshot_file::read(name.c_str(), failing_files{&b}).state();
    CHECK(a.open == 0);
    CHECK(b.open == 0);
    return std::pair{mapped, read};
  };
  auto const says = [](errc code, std::int64_t value = 0, std::int64_t bound = 0) {
    return strata::status{code, strata::no_layer, value, bound};
  };
  auto const twice = [](strata::status s) { return std::pair{s, s}; };
  CHECK(both(path) == twice(says(errc::cannot_open_file, ENOENT)));
  support::put(path, {});
  CHECK(both(path) == twice(says(errc::snapshot_truncated)));
  CHECK(both(folder / ".") == twice(says(errc::no_regular_file)));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(both(folder / "pipe") == twice(says(errc::no_regular_file)));  // and does not wait
  CHECK(both("/dev/null") == twice(says(errc::no_regular_file)));
  support::put(path, bytes_before);
  faults f;
  f.error = EACCES;
  f.failing = 0;
  CHECK(both(path, f) == twice(says(errc::cannot_open_file, EACCES)));
  f.failing = 1;
  CHECK(both(path, f) == twice(says(errc::cannot_read_file, EACCES)));
  f.failing = 2;  // map, and read
  CHECK(both(path, f) == twice(says(errc::cannot_read_file, EACCES)));
  f.error = EINTR;
  CHECK(both(path, f).second.ok());
  // It became shorter after somebody looked how long it is; or is longer than memory.
  faults longer;
  longer.grown = 2;
  CHECK(both(path, longer).second == says(errc::file_changed, 3, 5));
  longer.grown = std::int64_t{1} << 55;
  CHECK(both(path, longer) == std::pair{says(errc::cannot_read_file, ENOMEM),
                                        says(errc::out_of_memory, longer.grown + 3)});
  // What was opened and is no snapshot is for `restore` to refuse.
  auto to = make<small_type>();
  std::vector<sequence_id> got(2);
  auto const file = snapshot_file::map(path.c_str());
  REQUIRE(file.ok());
  CHECK(strata::restore(to, file->bytes(), {42}, got).state().code == errc::snapshot_truncated);
  CHECK(is_empty(to, 12 * 8, 12 * 8));
}
