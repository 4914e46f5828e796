/* The file PASS once, for REAL, TYPE, ISA, VECTOR and TARGET as cells.h has set them. */
#include "matrix.h"
#include PASS

#undef VEC
#undef LANES
#undef WHOLE_BLOCKS
#undef ISA
#undef VECTOR
#undef TARGET
