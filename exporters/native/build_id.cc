// Which sources this library was compiled from. The mark lets it be read without loading, which would run code.
#include "elementary.h"

extern "C" SLMC_EXPORT const char* slmc_build_id(void) {
  static const char text[] = "slmc_build_id=" SLMC_BUILD_ID;
  return text + sizeof "slmc_build_id=" - 1;
}
