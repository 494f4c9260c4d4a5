# The runtime: the kernels as they are compiled for the operators, and the host in this folder.
set(run_sources
  run/api.cc
  run/artifact.cc
  run/blocks.cc
  run/elementwise.cc
  run/execution.cc
  run/file.cc
  run/generation.cc
  run/json.cc
  run/manifest.cc
  run/network.cc
  run/normalizers.cc
  run/numeric.cc
  run/onnx_file.cc
  run/pool.cc
  run/pre_tokenizers.cc
  run/prefixes.cc
  run/selections.cc
  run/sha256.cc
  run/shapes.cc
  run/source.cc
  run/standard.cc
  run/sums.cc
  run/token_models.cc
  run/tokenizer.cc
  run/unicode.cc
  run/unigram.cc
  run/vocabulary.cc)
set(kernel_objects "$<FILTER:$<TARGET_OBJECTS:slmc_ops>,EXCLUDE,(host_ort|library)\\.cc>")

find_package(Threads REQUIRED)
function(slmc_run_options target)
  target_compile_features(${target} PRIVATE cxx_std_17)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE -Wall -Wextra -ffp-contract=off -fno-math-errno -fno-trapping-math
    -ffunction-sections -fdata-sections)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
endfunction()

# What takes no time beside the kernels is made small.
set(cold_sources
  run/agent.cc
  run/api.cc
  run/artifact.cc
  run/child.cc
  run/commands.cc
  run/evaluation.cc
  run/file.cc
  run/generation.cc
  run/machine.cc
  run/main.cc
  run/manifest.cc
  run/network.cc
  run/normalizers.cc
  run/onnx_file.cc
  run/options.cc
  run/pre_tokenizers.cc
  run/prefixes.cc
  run/serving.cc
  run/shapes.cc
  run/source.cc
  run/standard.cc
  run/tokenizer.cc
  run/unicode.cc
  run/worker.cc)
set_source_files_properties(${cold_sources} PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-Os>")

add_library(slmc_run STATIC ${run_sources} ${kernel_objects})
slmc_run_options(slmc_run)
target_link_libraries(slmc_run PUBLIC Threads::Threads)

# Reads models and inputs from stdin, for the tests.
add_executable(slmc-run-driver run/driver.cc)
slmc_run_options(slmc-run-driver)
target_link_libraries(slmc-run-driver PRIVATE slmc_run)

# The tests' altered artifacts; with SLMC_RUN_SANITIZED the runtime's own files have sanitizers in them, the kernels not:
# those have tests of their own, and take long to compile. NaN in elementary.h shifts a negative number, as intended.
option(SLMC_RUN_SANITIZED "AddressSanitizer and UndefinedBehaviorSanitizer in the runtime" OFF)
add_executable(slmc-run-fuzz run/fuzz.cc)
slmc_run_options(slmc-run-fuzz)
target_link_libraries(slmc-run-fuzz PRIVATE slmc_run)
if(SLMC_RUN_SANITIZED)
  foreach(target slmc_run slmc-run-fuzz)
    target_compile_options(${target} PRIVATE -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined
      -fno-sanitize=shift-base -fno-sanitize-recover=all)
  endforeach()
  target_link_options(slmc-run-fuzz PRIVATE -fsanitize=address,undefined)
endif()

# One file that needs nothing on its device, where there are static libraries to link it with.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LINK_OPTIONS -static)
check_cxx_source_compiles("#include <string>\nint main() { return static_cast<int>(std::string().size()); }" SLMC_RUN_STATIC)
unset(CMAKE_REQUIRED_LINK_OPTIONS)
add_executable(slmc-run
  run/agent.cc
  run/child.cc
  run/commands.cc
  run/evaluation.cc
  run/machine.cc
  run/main.cc
  run/microbenchmark.cc
  run/options.cc
  run/probing.cc
  run/samples.cc
  run/serving.cc
  run/worker.cc)
slmc_run_options(slmc-run)
target_link_libraries(slmc-run PRIVATE slmc_run)
target_link_options(slmc-run PRIVATE -Wl,--gc-sections $<$<CONFIG:Release>:-s>)
if(SLMC_RUN_STATIC)
  set_target_properties(slmc-run slmc-run-driver PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_link_options(slmc-run PRIVATE -static)
  target_link_options(slmc-run-driver PRIVATE -static)  # an emulator has no libraries of the other machine
endif()
install(TARGETS slmc-run RUNTIME DESTINATION slmc_native)
