#define VARBNN_LEVEL neon
#include "relaxing.inc.h"
