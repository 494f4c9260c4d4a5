#include "vector_avx2.h"
#include "vector_avx2_vnni.h"
#include "wrapper-inl.h"

int check_avx2() { return Checker<slmc::avx2::Vector>().run("avx2"); }
int check_avx_vnni() { return Checker<slmc::avx_vnni::Vector>().run("avx_vnni"); }
int check_avx512vl_vnni() { return Checker<slmc::avx512vl_vnni::Vector>().run("avx512vl_vnni"); }
