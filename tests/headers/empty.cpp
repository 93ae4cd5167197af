// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What is compiled comes by -include.
