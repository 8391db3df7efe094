#define REAL_IS_DOUBLE 0
#define ISA_PORTABLE
#include "lanes_kernels.inc.h"
