// vector_tests NAME: 0 where the type does as it should, 1 where it does not, 77 where this processor lacks it.
#include "check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

constexpr int kLacking = 77;

struct Type {
  const char* name;
  bool there;
  int (*check)();
};

int run(const Type* types, int count, const char* name) {
  for (int i = 0; i < count; ++i)
    if (std::strcmp(types[i].name, name) == 0) return types[i].there ? types[i].check() : kLacking;
  std::printf("no vector type %s here\n", name);
  return kLacking;
}

}  // namespace

int main(int count, char** arguments) {
  const char* name = count > 1 ? arguments[1] : "";
#if defined(__x86_64__)
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool vnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool evex = avx2 && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  const bool wide = evex && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                    __builtin_cpu_supports("gfni");
  const Type types[] = {{"avx2", avx2, check_avx2},
                        {"avx_vnni", avx2 && vnni, check_avx_vnni},
                        {"avx512vl_vnni", evex, check_avx512vl_vnni},
                        {"avx512", wide, check_avx512}};
#elif defined(__aarch64__)
  const Type types[] = {{"neon", true, check_neon}, {"neon_dot", true, check_neon_dot}};
#else
  const Type types[] = {{"", false, nullptr}};
#endif
  return run(types, sizeof types / sizeof *types, name);
}
