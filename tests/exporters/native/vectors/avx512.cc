#include "vector_avx512.h"
#include "wrapper-inl.h"

int check_avx512() { return Checker<slmc::avx512::Vector>().run("avx512"); }
