#define VARBNN_LEVEL avx2
#include "relaxing.inc.h"
