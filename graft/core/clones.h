// Of functions marked so compilers make one for processors with AVX2 too, optimised as -O3 does it, and the loader takes the
// one that fits. FMA is not among it, so both give the same bits.
#pragma once

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__)
#define GRAFT_CLONES __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define GRAFT_CLONES
#endif
