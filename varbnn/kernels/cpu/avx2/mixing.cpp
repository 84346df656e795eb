#define VARBNN_LEVEL avx2
#include "mixing.inc.h"
