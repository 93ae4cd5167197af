// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whether AddressSanitizer watches.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define STRATA_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STRATA_TEST_SANITIZED 1
#endif
#endif
#ifndef STRATA_TEST_SANITIZED
#define STRATA_TEST_SANITIZED 0
#endif
