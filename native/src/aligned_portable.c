#define REAL_IS_DOUBLE 0
#define ISA_PORTABLE
#include "aligned_kernels.inc.h"
