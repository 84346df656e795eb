#define VARBNN_LEVEL neon
#include "steps.inc.h"
