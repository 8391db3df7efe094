#if defined(__x86_64__) && defined(__GNUC__)
#define REAL_IS_DOUBLE 1
#define ISA_AVX2
#include "elementwise.inc.h"
#include "any_lanes.inc.h"
#endif
