// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// File systems that misbehave: the real one with calls that fail, are interrupted or do a part, and
// one of memory that knows what a crash could leave.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <strata/detail/posix_files.hpp>

namespace support {

/// A folder that goes with its files.
class temporary_folder {
 public:
  temporary_folder() {
    auto pattern = (std::filesystem::temp_directory_path() / "strata-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  temporary_folder(temporary_folder const&) = delete;
  temporary_folder& operator=(temporary_folder const&) = delete;
  ~temporary_folder() { std::filesystem::remove_all(path_); }

  std::string operator/(std::string const& name) const { return path_ + "/" + name; }
  std::set<std::string> names() const {
    std::set<std::string> all;
    for (auto const& entry : std::filesystem::directory_iterator(path_))
      all.insert(entry.path().filename().string());
    return all;
  }

 private:
  std::string path_;
};

inline std::vector<std::byte> bytes_of(std::string const& path) {
  std::ifstream in(path, std::ios::binary);
  std::string const text(std::istreambuf_iterator<char>(in), {});
  std::vector<std::byte> bytes(text.size());
  std::transform(text.begin(), text.end(), bytes.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}
inline void put(std::string const& path, std::vector<std::byte> const& bytes) {
  std::ofstream out(path, std::ios::binary);
  for (auto const b : bytes) out.put(static_cast<char>(b));
}

/// What goes wrong, and what was called.
struct faults {
  std::int64_t failing = -1;     // the number of the call that does not come to pass
  int error = EIO;               // and why
  std::size_t most = ~0ULL;      // bytes of one write or read
  std::int64_t grown = 0;        // by how much files seem longer than they are
  std::vector<std::string> log;  // of calls
  std::int64_t open = 0;         // descriptors

  /// Notes a call; whether it is the one that fails.
  bool fails(char const* name) {
    log.emplace_back(name);
    return static_cast<std::int64_t>(log.size()) - 1 == failing;
  }
};

/// The real files, with faults.
struct failing_files {
  faults* to;

  int open_folder(char const* path) const noexcept {
    return opened("open folder", [&] { return real.open_folder(path); });
  }
  int create(int folder, char const* name) const noexcept {
    return opened("create", [&] { return real.create(folder, name); });
  }
  int open(char const* path) const noexcept {
    return opened("open", [&] { return real.open(path); });
  }
  strata::detail::file_kind kind(int file) const noexcept {
    if (to->fails("kind")) return {to->error, false, 0};
    auto found = real.kind(file);
    found.bytes += to->grown;
    return found;
  }
  std::int64_t write(int file, std::byte const* from, std::size_t bytes) const noexcept {
    if (to->fails("write")) return -to->error;
    return real.write(file, from, std::min(bytes, to->most));
  }
  std::int64_t read(int file, std::byte* at, std::size_t bytes,
                    std::int64_t offset) const noexcept {
    if (to->fails("read")) return -to->error;
    return real.read(file, at, std::min(bytes, to->most), offset);
  }
  int sync(int file) const noexcept {
    bool const fails = to->fails(real.kind(file).regular ? "sync file" : "sync folder");
    return fails ? -to->error : real.sync(file);
  }
  int close(int file) const noexcept {
    bool const fails = to->fails("close");
    --to->open;
    auto const done = real.close(file);  // as systems do, whatever they say
    return fails ? -to->error : done;
  }
  int rename(int folder, char const* from, char const* name) const noexcept {
    return to->fails("rename") ? -to->error : real.rename(folder, from, name);
  }
  int remove(int folder, char const* name) const noexcept {
    return to->fails("remove") ? -to->error : real.remove(folder, name);
  }
  std::byte const* map(int file, std::size_t bytes) const noexcept {
    if (!to->fails("map")) return real.map(file, bytes);
    errno = to->error;
    return nullptr;
  }

 private:
  template <class Call>
  int opened(char const* name, Call const& call) const {
    if (to->fails(name)) return -to->error;
    auto const file = call();
    to->open += file >= 0;
    return file;
  }

  static constexpr strata::detail::posix_files real = {};
};

/// One folder in memory. What was not synchronised may be lost in a crash, or be there: bytes of
/// files and names, each on its own.
struct model_disk {
  using content = std::vector<std::byte>;
  struct file {
    content now, durable;
  };
  std::vector<file> files;
  std::map<std::string, std::size_t> now, durable;  // names

  /// What a crash at this moment may leave under a name; false where it may be something torn.
  bool after_crash(std::string const& name, std::set<content>& found) const {
    for (auto const* names : {&now, &durable}) {
      auto const at = names->find(name);
      if (at == names->end()) continue;
      auto const& f = files[at->second];
      if (f.now != f.durable) return false;
      found.insert(f.durable);
    }
    return true;
  }
};

/// Calls `look` after each call that changes something.
template <class Look>
struct model_files {
  static constexpr int folder = 1'000'000;
  model_disk* disk;
  Look* look;

  int open_folder(char const*) const noexcept { return folder; }
  int create(int, char const* name) const noexcept {
    if (disk->now.contains(name)) return -EEXIST;
    disk->now[name] = disk->files.size();
    disk->files.emplace_back();
    (*look)();
    return static_cast<int>(disk->files.size()) - 1;
  }
  std::int64_t write(int file, std::byte const* from, std::size_t bytes) const noexcept {
    auto& to = disk->files[static_cast<std::size_t>(file)].now;
    to.insert(to.end(), from, from + bytes);
    (*look)();
    return static_cast<std::int64_t>(bytes);
  }
  int sync(int file) const noexcept {
    if (file == folder) {
      disk->durable = disk->now;
    } else {
      auto& f = disk->files[static_cast<std::size_t>(file)];
      f.durable = f.now;
    }
    (*look)();
    return 0;
  }
  int close(int) const noexcept { return 0; }
  int rename(int, char const* from, char const* to) const noexcept {
    disk->now[to] = disk->now.at(from);
    disk->now.erase(from);
    (*look)();
    return 0;
  }
  int remove(int, char const* name) const noexcept {
    disk->now.erase(name);
    (*look)();
    return 0;
  }
};

}  // namespace support
