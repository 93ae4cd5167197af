// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Inputs of the snapshot target that come past the checksums: files that storages wrote, and changes
// of them after which all sections are well formed again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <random>
#include <span>
#include <vector>

#include <strata/checksum.hpp>

#include "fuzz/snapshot_storage.hpp"

namespace fuzz::snapshot {

using buffer = std::vector<std::byte>;
inline constexpr std::size_t header_bytes = 8;                       // of an input, before the file
inline constexpr std::size_t positions_begin = 8 + 16 * num_layers;  // in a sequence's body

struct section {
  std::uint32_t kind = 0;
  buffer body;
};

template <class T>
T number_at(buffer const& from, std::size_t at) {
  T value = 0;
  if (at + sizeof(T) <= from.size()) std::memcpy(&value, &from[at], sizeof(T));
  return value;
}
template <class T>
void append(buffer& to, T value) {
  auto const piece = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), piece.begin(), piece.end());
}

/// What looks like sections; what does not is dropped.
inline std::vector<section> sections_of(buffer const& file) {
  std::vector<section> all;
  for (auto at = header_bytes; at + 16 <= file.size();) {
    auto const kind = number_at<std::uint32_t>(file, at);
    auto const size =
        std::min<std::uint64_t>(number_at<std::uint64_t>(file, at + 8), file.size() - at - 16);
    auto const body = file.begin() + static_cast<std::ptrdiff_t>(at + 16);
    all.push_back({kind, {body, body + static_cast<std::ptrdiff_t>(size)}});
    at += 16 + (size + 7) / 8 * 8 + 8;
  }
  return all;
}

inline buffer written(buffer const& header, std::vector<section> const& sections) {
  buffer file(header.begin(),
              header.begin() + static_cast<std::ptrdiff_t>(std::min(header.size(), header_bytes)));
  file.resize(header_bytes);
  for (auto const& s : sections) {
    auto const begin = file.size();
    append(file, s.kind);
    append(file, std::uint32_t{0});
    append(file, static_cast<std::uint64_t>(s.body.size()));
    file.insert(file.end(), s.body.begin(), s.body.end());
    file.resize((file.size() + 7) / 8 * 8);
    append(file, strata::crc32c(std::span(file).subspan(begin)));
    append(file, std::uint32_t{0});
  }
  return file;
}

inline void repair(buffer& file) { file = written(file, sections_of(file)); }

/// A file of up to three sequences, for a setting.
template <class S>
buffer seed_of(setting const& how, std::mt19937& random) {
  subject<S> from({how.type, how.block_size, -1, false, false});
  auto const less = [&](std::uint32_t n) { return static_cast<std::int32_t>(random() % n); };
  std::vector<sequence_id> ids;
  for (auto count = less(4); count > 0; --count) {
    ids.push_back(*from.storage.open(plan_number(less(4))));
    for (auto steps = less(4); steps > 0; --steps) {
      // A gap now and then, up to where positions end.
      auto const far = less(8) == 0 ? 0x7FFFFFFE - 40 * steps : less(3) == 0 ? less(5) : 0;
      auto const gap = std::max(0, far - from.storage.next_position(ids.back()));
      grow(from.storage, ids.back(), less(9), gap, static_cast<std::uint8_t>(random()));
    }
    if constexpr (requires { from.storage.shrink(ids.back(), plan_number(0)); })
      if (less(4) == 0) static_cast<void>(from.storage.shrink(ids.back(), plan_number(less(4))));
  }
  return saved(from.storage, ids);
}
inline buffer seed(std::mt19937& random) {
  auto const mode = static_cast<std::uint8_t>(random());
  auto const how = setting::of(mode);
  auto const file = how.type == 0   ? seed_of<paged>(how, random)
                    : how.type == 1 ? seed_of<contiguous>(how, random)
                                    : seed_of<head_scaled>(how, random);
  buffer all(header_bytes);
  all[0] = std::byte{mode};
  all[1] = static_cast<std::byte>(random());
  all.insert(all.end(), file.begin(), file.end());
  return all;
}

/// A number that is on some edge, or near what was there.
inline std::uint32_t other_number(std::uint32_t now, std::mt19937& random) {
  constexpr std::uint32_t edges[] = {
      0,  1,  2,          3,          4,          6,          7,          8,       29,
      30, 31, 0x7FFFFFFD, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 0x1000000};
  switch (random() % 4) {
    case 0:
      return now + 1;
    case 1:
      return now - 1;
    case 2:
      return static_cast<std::uint32_t>(random());
    default:
      return edges[random() % std::size(edges)];
  }
}

/// Changes a sequence's length, and its positions with it.
inline void change_length(section& s, std::mt19937& random) {
  auto const then = other_number(number_at<std::uint32_t>(s.body, 0), random) % 40;
  s.body.resize(std::min(s.body.size(), positions_begin));
  for (std::uint32_t t = 0; t < then; ++t) append(s.body, t);
  if (s.body.size() >= 4) std::memcpy(s.body.data(), &then, 4);
}

/// Moves a sequence's tokens from one on further away, up to where positions end.
inline void move_tokens(section& s, std::mt19937& random) {
  if (s.body.size() < positions_begin + 4) return;
  auto const tokens = (s.body.size() - positions_begin) / 4;
  auto const last = number_at<std::uint32_t>(s.body, s.body.size() - 4);
  auto const by = random() % 4 == 0 ? 0x7FFFFFFEU - last : static_cast<std::uint32_t>(random() % 9);
  for (auto t = random() % tokens; t < tokens; ++t) {
    auto const at = positions_begin + 4 * t;
    auto const moved = number_at<std::uint32_t>(s.body, at) + by;
    std::memcpy(&s.body[at], &moved, 4);
  }
}

inline void change_number(section& s, std::mt19937& random) {
  auto const at = random() % (s.body.size() / 4 + 1) * 4;
  if (at + 4 > s.body.size()) return;
  auto const value = other_number(number_at<std::uint32_t>(s.body, at), random);
  std::memcpy(&s.body[at], &value, 4);
}

/// Other sections, or of other sizes.
inline void change_order(std::vector<section>& all, std::mt19937& random) {
  auto const any = [&] { return static_cast<std::ptrdiff_t>(random() % all.size()); };
  auto& one = all[static_cast<std::size_t>(any())];
  switch (random() % 6) {
    case 0:
      one.kind = other_number(one.kind, random);
      return;
    case 1:
      one.body.resize(one.body.size() + random() % 17);
      return;
    case 2:
      one.body.resize(one.body.size() - random() % (one.body.size() + 1));
      return;
    case 3:
      std::swap(one, all[static_cast<std::size_t>(any())]);
      return;
    case 4:
      all.insert(all.begin() + any(), section(one));
      return;
    default:
      all.erase(all.begin() + any());
      return;
  }
}

inline void mutate_once(std::vector<section>& all, std::mt19937& random) {
  if (random() % 6 == 0) {
    change_order(all, random);
    return;
  }
  // Most often a sequence; the first section says what the storage is, and must be as it is.
  auto* one = &all[random() % all.size()];
  for (int i = 0; i < 20 && one->kind != 2; ++i)
    if (one->kind == 1 || random() % 8 > 0) one = &all[random() % all.size()];
  switch (one->kind == 2 ? random() % 8 : 7) {
    case 0:
      change_length(*one, random);
      return;
    case 1:
    case 2:
    case 3:
      move_tokens(*one, random);
      return;
    default:
      change_number(*one, random);
      return;
  }
}

/// Any change of an input, after which its sections are well formed, and its first one most often
/// says how many sequences there are.
inline void mutate(buffer& file, std::mt19937& random) {
  if (file.size() < header_bytes + 16 || random() % 16 == 0) file = seed(random);
  auto all = sections_of(file);
  for (auto times = 1 + random() % 2; times > 0 && !all.empty(); --times) mutate_once(all, random);
  buffer header(file.begin(), file.begin() + header_bytes);
  // All but the type of the storage, which the file is for.
  if (random() % 8 == 0) header[0] ^= static_cast<std::byte>(random() % 256 & ~3U);
  if (random() % 8 == 0) header[1] = static_cast<std::byte>(random());
  auto const count = static_cast<std::uint32_t>(
      std::ranges::count_if(all, [](auto const& s) { return s.kind == 2; }));
  if (random() % 8 > 0 && !all.empty() && all[0].body.size() >= 16)
    std::memcpy(&all[0].body[12], &count, 4);
  file = written(header, all);
}

}  // namespace fuzz::snapshot
