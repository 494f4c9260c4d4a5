#include "vector_neon_dot.h"
#include "wrapper-inl.h"

int check_neon_dot() { return Checker<slmc::neon_dot::Vector>().run("neon_dot"); }
