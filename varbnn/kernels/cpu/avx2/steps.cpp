#define VARBNN_LEVEL avx2
#include "steps.inc.h"
