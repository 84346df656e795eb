#define VARBNN_LEVEL baseline
#include "steps.inc.h"
