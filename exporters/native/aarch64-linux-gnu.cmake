# Cross-compiles for 64-bit Arm Linux with Debian's g++-aarch64-linux-gnu. The result needs glibc 2.32 and libgcc_s,
# no libstdc++: less than the onnxruntime wheel itself.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-static-libstdc++ -Wl,--exclude-libs,ALL -Wl,--gc-sections")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
