#define VARBNN_LEVEL avx512
#include "mixing.inc.h"
