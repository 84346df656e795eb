#define VARBNN_LEVEL baseline
#include "relaxing.inc.h"
