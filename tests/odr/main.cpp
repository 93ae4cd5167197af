// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Two translation units in one program must agree: integers exactly, floats but for the last bits,
// which fused multiply-adds change.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "answers.hpp"

namespace {

bool agree(answers const& a, answers const& b) {
  for (int i = 0; i < 8; ++i)
    if (!(std::abs(a.attended[i] - b.attended[i]) <= 1e-5f * (1 + std::abs(a.attended[i]))))
      return false;
  return a.slots == b.slots && a.random_word == b.random_word;
}

void print(answers const& a) {
  std::printf("%s: %d slots, random %u, attended", a.isa, a.slots, a.random_word);
  for (auto const x : a.attended) std::printf(" %a", static_cast<double>(x));
  std::printf("\n");
}

}  // namespace

int main() {
#ifdef ODR_SECOND_NEEDS
  if (!__builtin_cpu_supports(ODR_SECOND_NEEDS)) return 77;
#endif
  auto const a = first(), b = second();
  print(a);
  print(b);
#ifdef ODR_SECOND_NEEDS
  if (std::strcmp(a.isa, b.isa) == 0) return 1;  // two bodies of a kernel under one name
#endif
  return agree(a, b) ? 0 : 1;
}
