# Compiles slmc-run with ziglang's clang and links static musl: a third of what glibc takes. -DSLMC_ZIG=FILE is the
# program, -DSLMC_PROCESSOR one of x86_64, aarch64, armv7l, riscv64.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SLMC_ZIG SLMC_PROCESSOR)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${SLMC_PROCESSOR})
if(SLMC_PROCESSOR STREQUAL "armv7l")
  set(slmc_target arm-linux-musleabihf)
else()
  set(slmc_target ${SLMC_PROCESSOR}-linux-musl)
endif()
set(CMAKE_CXX_COMPILER ${SLMC_ZIG} c++ -target ${slmc_target})
set(CMAKE_CXX_ARCHIVE_CREATE "${SLMC_ZIG} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_APPEND "${SLMC_ZIG} ar q <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${SLMC_ZIG} ranlib <TARGET>")
# Of zig's own C++ library the small build; it is made at the first link.
set(CMAKE_CXX_FLAGS_INIT "-Os")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Os")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
