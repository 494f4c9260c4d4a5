#include "vector_neon.h"
#include "wrapper-inl.h"

int check_neon() { return Checker<slmc::neon::Vector>().run("neon"); }
