// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Bytes that libFuzzer changes have a wrong checksum. Here they get the right one.
#include "fuzz/snapshot_target.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "fuzz/entry/entry.hpp"
#include "fuzz/snapshot_mutation.hpp"

STRATA_FUZZ_ENTRY(fuzz::snapshot)

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t room);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t room, unsigned seed) {
  std::mt19937 random(seed);
  auto const* const begin = reinterpret_cast<std::byte const*>(data);
  std::vector<std::byte> file(begin, begin + size);
  // As it comes, now and then; and within a section that is repaired afterwards.
  if (random() % 16 == 0) return LLVMFuzzerMutate(data, size, room);
  if (random() % 4 == 0) {
    file.resize(room);
    auto* const at = reinterpret_cast<std::uint8_t*>(file.data());
    file.resize(LLVMFuzzerMutate(at, size, room));
    fuzz::snapshot::repair(file);
  } else {
    fuzz::snapshot::mutate(file, random);
  }
  if (file.size() > room) return size;
  std::copy(file.begin(), file.end(), reinterpret_cast<std::byte*>(data));
  return file.size();
}
