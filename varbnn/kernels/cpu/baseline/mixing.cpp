#define VARBNN_LEVEL baseline
#include "mixing.inc.h"
