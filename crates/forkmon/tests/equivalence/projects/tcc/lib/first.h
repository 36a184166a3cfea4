#include "deep.h"
#define FIRST "first @20@ " DEEP
