#define VARBNN_LEVEL avx512
#include "relaxing.inc.h"
