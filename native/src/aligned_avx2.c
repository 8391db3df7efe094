#if defined(__x86_64__) && defined(__GNUC__)
#define REAL_IS_DOUBLE 0
#define ISA_AVX2
#include "aligned_kernels.inc.h"
#endif
