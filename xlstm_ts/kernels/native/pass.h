/* One pass over the cells, for REAL, TYPE, ISA, VECTOR and TARGET as cells.c has set them. */
#include "matrix.h"
#include "slstm.h"
#include "mlstm.h"
#include "parts.h"
#include "readout.h"

#undef VEC
#undef LANES
#undef WHOLE_BLOCKS
#undef ISA
#undef VECTOR
#undef TARGET
