#define VARBNN_LEVEL neon
#include "mixing.inc.h"
