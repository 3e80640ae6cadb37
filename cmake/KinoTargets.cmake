# The three ways a target is made. Own code is compiled with warnings as errors; third-party headers are SYSTEM.
add_library(kino_flags INTERFACE)
target_compile_options(kino_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Werror>)
target_include_directories(kino_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(kino_flags INTERFACE KINO_VERSION="${PROJECT_VERSION}"
  $<$<BOOL:${KINO_WITH_CUDA}>:KINO_WITH_CUDA> $<$<BOOL:${KINO_WITH_MEDIA}>:KINO_WITH_MEDIA>)
if(KINO_SANITIZE)
  target_compile_options(kino_flags INTERFACE -fsanitize=${KINO_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(kino_flags INTERFACE -fsanitize=${KINO_SANITIZE})
  target_compile_definitions(kino_flags INTERFACE KINO_SANITIZED)
endif()
if(KINO_SANITIZE STREQUAL "thread")
  # With this macro protobuf's headers give map fields two members more, and the system's libprotobuf, which is built
  # without the sanitizer, reads and writes the others where they are not.
  target_compile_options(kino_flags INTERFACE -U__SANITIZE_THREAD__)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(kino_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety>)
endif()
target_link_options(kino_flags INTERFACE -fuse-ld=lld)

# kino_library(NAME SOURCES a.cc ... [PUBLIC target ...] [PRIVATE target ...] [TORCH])
# One per folder; NAME is the folder's path with underscores. TORCH adds LibTorch and its precompiled header.
function(kino_library name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_PUBLIC} PRIVATE kino_flags ${ARG_PRIVATE})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  if(ARG_TORCH)
    kino_use_torch(${name})
  endif()
endfunction()

# Under the thread sanitizer: absl's locks, which live in a library built without it, are shown to it.
function(kino_show_locks executable)
  if(KINO_SANITIZE STREQUAL "thread")
    target_sources(${executable} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/tsan_absl_mutex.cc)
    target_link_libraries(${executable} PRIVATE absl::synchronization ${CMAKE_DL_LIBS})
  endif()
endfunction()

# kino_binary(NAME SOURCES main.cc ... [PRIVATE target ...] [TORCH])  -> bin/NAME
function(kino_binary name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;PRIVATE" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_property(GLOBAL APPEND PROPERTY KINO_EXECUTABLES ${name})
  kino_show_locks(${name})
  target_link_libraries(${name} PRIVATE kino_flags ${ARG_PRIVATE})
  if(ARG_TORCH)
    kino_use_torch(${name})
  endif()
endfunction()

# kino_test_timeout(TEST seconds): after that long TEST counts as hanging. A sanitizer makes some tests ten times slower.
function(kino_test_timeout test seconds)
  if(KINO_SANITIZE)
    math(EXPR seconds "4 * ${seconds}")
  endif()
  set_tests_properties(${test} PROPERTIES TIMEOUT ${seconds})
endfunction()

# kino_test(NAME SOURCES x_test.cc ... [PRIVATE target ...] [TORCH] [TIMEOUT seconds] [LABELS label ...])
# One test executable per folder, one ctest entry per executable.
function(kino_test name)
  if(NOT KINO_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "TORCH" "TIMEOUT" "SOURCES;PRIVATE;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_property(GLOBAL APPEND PROPERTY KINO_EXECUTABLES ${name})
  target_link_libraries(${name} PRIVATE kino_flags ${ARG_PRIVATE} GTest::gmock GTest::gtest_main)
  kino_show_locks(${name})
  target_compile_definitions(${name} PRIVATE KINO_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    KINO_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}" KINO_PYTHON="${KINO_PYTHON}")
  if(ARG_TORCH)
    kino_use_torch(${name})
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
  kino_test_timeout(${name} ${ARG_TIMEOUT})
endfunction()

# kino_python_test(NAME SCRIPT file.py [ARGS ...] [TIMEOUT seconds] [LABELS label ...] [SERIAL]): runs pytest on SCRIPT.
# SERIAL: no other test runs beside it, since its processes take all cores.
function(kino_python_test name)
  if(NOT KINO_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "SERIAL" "SCRIPT;TIMEOUT" "ARGS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  add_test(NAME ${name} COMMAND ${KINO_PYTHON} -m pytest -q -p no:cacheprovider ${ARG_SCRIPT} ${ARG_ARGS}
           WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" RUN_SERIAL ${ARG_SERIAL}
    ENVIRONMENT "KINO_BIN_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};KINO_SOURCE_DIR=${CMAKE_SOURCE_DIR};HF_HUB_OFFLINE=1;TRANSFORMERS_OFFLINE=1;PYTHONDONTWRITEBYTECODE=1;KINO_GOOGLEAPIS_DIR=${KINO_GOOGLEAPIS_DIR}")
  kino_test_timeout(${name} ${ARG_TIMEOUT})
endfunction()

# Compiled alike in every torch target, since they share one precompiled header: per-operator headers, and OpenMP, without
# which at::parallel_for is serial.
# -fPIC: an executable would get -fPIE, with which the libraries' precompiled header is not valid.
set(KINO_TORCH_COMPILE_OPTIONS "$<$<COMPILE_LANGUAGE:CXX>:-fopenmp;-fPIC>")
set(KINO_TORCH_COMPILE_DEFINITIONS AT_PER_OPERATOR_HEADERS)

# LibTorch stays PRIVATE to the targets that ask for it.
function(kino_use_torch target)
  target_compile_options(${target} PRIVATE ${KINO_TORCH_COMPILE_OPTIONS})
  target_compile_definitions(${target} PRIVATE ${KINO_TORCH_COMPILE_DEFINITIONS})
  target_link_libraries(${target} PRIVATE torch::c10 torch::torch_cpu)
  if(KINO_WITH_CUDA)
    # libtorch_cuda itself is opened at run time, when a cuda device is asked for (engine/core/device.cc): a CPU run
    # neither loads it nor needs it.
    target_link_libraries(${target} PRIVATE torch::c10_cuda)
  endif()
  target_precompile_headers(${target} REUSE_FROM kino_torch_pch)
endfunction()
