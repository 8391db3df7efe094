#define REAL_IS_DOUBLE 1
#define ISA_PORTABLE
#include "elementwise.inc.h"
#include "any_lanes.inc.h"
