#define VARBNN_LEVEL avx512
#include "steps.inc.h"
